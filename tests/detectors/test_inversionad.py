"""InversionAD: its schedule and scores, refusals; tests/parity has the authors' numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.diffusion.inversionad import inversionad
from iadjax.errors import UserError
from iadjax.nn.dit import grid_code
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

SMALL = {"layers": ("layer1", "layer2"), "width": 8, "depth": 1, "heads": 2, "first_rate": 0.1}
IMAGE = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)


def test_scores_are_standardised_by_the_training_images():
    frozen = {"backbone": pyramid_variables()}
    detector = inversionad(pyramid(), **SMALL)
    spec = spec_for(detector, frozen, 4, (32, 32, 3))
    assert spec.features.shape == (1, 2, 2, 48)
    state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
    learn, update = (jax.jit(phase.update) for phase in detector.phases(spec))
    # a network that has learnt nothing inverts every image to zero
    state, _ = learn(jax.random.key(0), state, frozen, batch_of(detector, frozen, IMAGE))
    for half in np.split(IMAGE, 2):
        state, info = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, half))
    assert float(info["images"]) == 4
    # the sum of two parts, each of mean 0 and variance 1
    score = np.asarray(predict(detector, state, frozen, IMAGE).score, np.float64)
    assert np.mean(score) == pytest.approx(0, abs=1e-4) and 0 < np.var(score) <= 4.001


def test_positions_are_coded_column_first():
    code = grid_code(3, 5, 8)
    assert code.shape == (15, 8)
    row, column, w = 2, 3, 0.01
    truth = [f(p * w**i) for p in (column, row) for f in (np.sin, np.cos) for i in (0, 1)]
    np.testing.assert_allclose(code[5 * row + column], truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 6}, "width must be a positive multiple of 4"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs must be below epochs=3"),
        ({"inversion_steps": 1001}, "inversion_steps must be in"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        inversionad(pyramid(), **{**SMALL, **options})
