"""NSA: its labels and losses, the draw of another image, refusals; tests/parity has the authors' numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.autoencoder.nsa import EncoderDecoder, nsa
from iadjax.errors import UserError
from tests.direct import batch_of, phases, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY = jax.random.key(0)


def test_patches_come_from_another_image():
    image = np.full((64, 64, 3), 0.5, np.float32)
    other = np.random.default_rng(0).random((64, 64, 3), np.float32)
    augment = phases(nsa(label="binary"))[0].augment
    made = [augment(np.random.default_rng(seed), image, lambda: other) for seed in range(5)]
    for each in made:
        assert each["augmented"].shape == (64, 64, 3) and each["target"].dtype == np.float32
        assert set(np.unique(each["target"])) == {0.0, 1.0}
        # a flat image cannot change by itself
        assert not np.array_equal(each["augmented"], image)
    # the label of a change of x grey levels is 1 / (1 + exp(-k (x - x0)))
    augment = phases(nsa(label="logistic", logistic=(0.5, 10.0)))[0].augment
    target = augment(np.random.default_rng(0), image, lambda: other)["target"]
    levels = phases(nsa(label="intensity"))[0].augment(np.random.default_rng(0), image, lambda: other)["target"]
    inside = levels > 0
    assert inside.any()
    np.testing.assert_allclose(target[inside], 1 / (1 + np.exp(-0.5 * (levels[inside].astype(np.float64) - 10))), rtol=1e-4)


@pytest.mark.parametrize("label", ["logistic", pytest.param("intensity", marks=pytest.mark.slow)])
def test_loss_and_prediction_by_numpy(label):
    detector = nsa(width=2, blocks=(1, 1, 1, 1), block="ssmctb", label=label)
    spec = spec_for(detector, {}, 2, (32, 64, 3))
    state = jax.jit(lambda: detector.init(KEY, {}, spec))()
    rng = np.random.default_rng(0)
    image, target = rng.random((2, 32, 64, 3), np.float32), rng.random((2, 32, 64), np.float32)
    network, x = EncoderDecoder(2, (1, 1, 1, 1), "ssmctb"), (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    batch = batch_of(detector, {}, image, extra={"augmented": image, "target": target}, valid=[True, False])

    def program(state, batch, x):
        (phase,) = detector.phases(spec)
        (logits, own), _ = network.apply(state.variables, x, batch.valid, mutable="batch_stats")
        predicted = detector.predict(state, {}, batch), network.apply(state.variables, x)[0]
        return phase.update(KEY, state, {}, batch)[1]["loss"], logits, own, predicted

    loss, logits, own, (found, plain) = jax.jit(program)(state, batch, x.astype(np.float32))
    z, y, plain = (np.asarray(each, np.float64) for each in (logits[0], target[0], plain))
    if label == "intensity":
        truth, maps = np.mean((np.maximum(z, 0) - y) ** 2), np.maximum(plain, 0)
    else:
        p = 1 / (1 + np.exp(-z))
        truth, maps = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), 1 / (1 + np.exp(-plain))
    assert own[0] > 0
    np.testing.assert_allclose(loss, truth + 0.1 * own[0], rtol=1e-5)
    np.testing.assert_allclose(found.map, maps, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.score, maps.mean((1, 2)), rtol=1e-4)


def test_bad_options_are_refused():
    for options, match in (
        ({"label": "soft"}, "label must be"),
        ({"half_width": (0.3, 0.2)}, "half_width"),
        ({"resize": (0.0, 1.0)}, "resize"),
        ({"logistic": (0.0, 1.0)}, "logistic"),
        ({"block": "se"}, "block must be one of"),
        ({"blocks": (2, 2, 2)}, "blocks must be four"),
        ({"max_patches": 0}, "max_patches"),
    ):
        with pytest.raises(UserError, match=match):
            nsa(**options)
    detector = nsa(width=2)
    with pytest.raises(UserError, match="multiples of 32"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (48, 64, 3)))
