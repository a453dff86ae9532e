"""AnomalyCLIP's prompts; tests/parity/test_anomalyclip.py compares the whole with the authors' code."""

import jax
import numpy as np
import pytest

from iadjax import backbones, losses
from iadjax.detectors.zero_shot.anomalyclip import anomalyclip, prompt_ids
from iadjax.errors import UserError
from tests import direct
from tests.tiny import tiny_networks


def test_ids_of_both_prompts():
    normal, anomalous = prompt_ids(3)
    # start, X X X, (damaged) object, full stop, end
    x, word, stop, end = normal[1], normal[4], normal[5], normal[6]
    assert list(normal) == [49406, x, x, x, word, stop, end, 0] and end == 49407
    assert list(anomalous[:4]) == [49406, x, x, x] and list(anomalous[5:]) == [word, stop, end]


def test_without_labelled_images_it_is_refused():
    with tiny_networks():
        images, text = backbones.backbone("clip_tiny"), backbones.backbone("clip_tiny_text")
        frozen = {name: each.init(jax.random.key(0), each.layers) for name, each in (("backbone", images), ("text", text))}
        detector = anomalyclip(images, text, blocks=(2,))
        with pytest.raises(UserError, match="name it with protocol.source"):
            detector.init(jax.random.key(0), frozen, direct.spec_for(detector, frozen, 0, (64, 64, 3)))
        with pytest.raises(UserError, match=r"clip_tiny_text and \[24\]"):
            anomalyclip(images, text)


def test_predictions_do_without_the_text_tower():
    with tiny_networks():
        images, text = backbones.backbone("clip_tiny"), backbones.backbone("clip_tiny_text")
        frozen = {name: each.init(jax.random.key(0), each.layers) for name, each in (("backbone", images), ("text", text))}
        detector = anomalyclip(images, text, blocks=(2,), prompt_length=2, depth=2, deep_length=1)
        state = detector.init(jax.random.key(0), frozen, direct.spec_for(detector, frozen, 2, (64, 64, 3)))
        g = detector.precompute(state, frozen)
        batch = direct.batch_of(detector, frozen, np.zeros((1, 64, 64, 3), np.float32))
    assert g.shape[0] == 2
    np.testing.assert_allclose(np.linalg.norm(g, axis=-1), 1, rtol=1e-6)
    a = np.random.default_rng(0).standard_normal((1, g.shape[1])).astype(np.float32)
    level = np.broadcast_to(a[:, None, None], (1, 4, 4, g.shape[1]))
    found = detector.predict(g, {}, batch._replace(features=(a, level)))
    # the softmax of both similarities over the temperature, .07
    x = np.exp(np.float64(a) @ np.float64(g).T / 0.07)
    assert found.score[0] == pytest.approx(x[0, 1] / x.sum(), rel=1e-4)
    np.testing.assert_allclose(found.map, found.score[0], rtol=1e-4)


def test_dice_by_hand():
    x = np.float32([[[0.5, 1.0], [0.25, 0.0]]])
    target = np.uint8([[[1, 1], [0, 0]]])
    assert losses.dice(x, target)[0] == pytest.approx(1 - (2 * 1.5 + 1) / (1.75 + 2 + 1))
