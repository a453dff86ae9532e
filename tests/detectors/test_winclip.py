"""WinCLIP's parts by hand; tests/parity/test_winclip.py compares the whole with anomalib."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.detectors.zero_shot.winclip import harmonic, prompts, winclip
from iadjax.errors import UserError
from tests import direct
from tests.tiny import tiny_networks


def test_harmonic_mean_over_the_windows_that_hold_a_patch():
    rng = np.random.default_rng(0)
    for side in (1, 2, 3):
        windows = rng.uniform(0.1, 1, (2, 6 - side, 5 - side))
        truth = np.zeros((2, 5, 4))
        for i in range(5):
            for j in range(4):
                held = [
                    windows[:, y, x]
                    for y in range(6 - side)
                    for x in range(5 - side)
                    if y <= i < y + side and x <= j < x + side
                ]
                truth[:, i, j] = len(held) / sum(1 / each for each in held)
        np.testing.assert_allclose(harmonic(jnp.asarray(windows, jnp.float32), side), truth, rtol=1e-5)
    # a window of score 0 makes its patches 0
    assert np.array_equal(harmonic(jnp.asarray([[[0.0, 1.0]]]), 1), [[[0.0, 1.0]]])


def test_prompts_are_the_papers():
    normal, anomalous = prompts("metal nut")
    assert len(set(normal)) == 7 * 22 and len(set(anomalous)) == 4 * 22
    assert normal[0] == "a cropped photo of the metal nut."
    assert anomalous[-1] == "a photo of a metal nut with damage for anomaly detection."


@pytest.fixture(scope="module")
def fitted():
    """WinCLIP with one normal image of each of two categories; it and what it was fitted on."""
    with tiny_networks():
        backbone, text = backbones.backbone("clip_tiny"), backbones.backbone("clip_tiny_text")
        frozen = {
            name: network.init(jax.random.key(i), network.layers)
            for i, (name, network) in enumerate((("backbone", backbone), ("text", text)))
        }
        detector = winclip(backbone, text)
        image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
        spec = direct.spec_for(detector, frozen, 2, (64, 64, 3), categories=("metal_nut", "wood"))
        (phase,) = detector.phases(spec)
        batch = direct.batch_of(detector, frozen, image, category=np.array([0, 1], np.int32))
        state, _ = phase.update(jax.random.key(0), detector.init(jax.random.key(0), frozen, spec), frozen, batch)
        yield detector, frozen, state, image


def test_a_normal_image_is_compared_with_those_of_its_category(fitted):
    detector, frozen, state, image = fitted

    def maps(category):
        batch = direct.batch_of(detector, frozen, image, category=np.array(category, np.int32))
        return np.asarray(jax.jit(detector.predict)(state, frozen, batch._replace(mask=None, label=None)).map)

    zero = state._replace(references=(), category=None)
    text = jax.jit(detector.predict)(
        zero, frozen, direct.batch_of(detector, frozen, image, category=np.array([0, 1], np.int32))
    )
    # it is its own reference, so only half of the text's map is left
    np.testing.assert_allclose(maps([0, 1]), np.asarray(text.map) / 2, atol=1e-3)
    # and it is not where its category is another one, but it is again where none is known
    assert maps([1, 0]).mean() > maps([0, 1]).mean() + 0.01
    unknown = jax.jit(detector.predict)(
        zero, frozen, direct.batch_of(detector, frozen, image, category=np.array([-1, -1], np.int32))
    )
    np.testing.assert_allclose(maps([-1, -1]), np.asarray(unknown.map) / 2, atol=1e-3)


def test_networks_that_are_not_clips_are_refused():
    with tiny_networks():
        text = backbones.backbone("clip_tiny_text")
        with pytest.raises(UserError, match="got filter_bank and clip_tiny_text"):
            winclip(backbones.backbone("filter_bank"), text)
        with pytest.raises(UserError, match=r"windows may have \[2, 3\], got \[4\]"):
            winclip(backbones.backbone("clip_tiny"), text, windows=(4,))
