"""DFM and FRE: padded rows, the closed form beside the trained one, and refusals; tests/parity has anomalib's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.distribution.dfm import dfm
from iadjax.detectors.distribution.fre import fre
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for

FROZEN = {"backbone": {}}


def fitted(images, valid=None, **options):
    detector = dfm(tiny.bank(), **{"layer": "layer2", "pooling": 2, **options})
    state = detector.init(jax.random.key(0), FROZEN, spec_for(detector, FROZEN, len(images), images.shape[1:]))
    (phase,) = phases(detector)
    for start in range(0, len(images), 3):
        rows = slice(start, start + 3)
        batch = batch_of(detector, FROZEN, images[rows], valid=None if valid is None else valid[rows])
        state, _ = jax.jit(phase.update)(jax.random.key(0), state, FROZEN, batch)
    return detector, phase.finalize(jax.random.key(0), state, FROZEN)


def test_padded_rows_and_batches_do_not_matter():
    images = np.random.default_rng(0).random((7, 32, 32, 3), np.float32)
    whole = fitted(images[[0, 2, 3, 4, 6]])[1]
    # the second and the sixth row are padded
    parts = fitted(images, valid=np.array([1, 0, 1, 1, 1, 0, 1], bool))[1]
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.variances, whole.variances, rtol=1e-4)


def test_the_principal_axes_are_the_best_tied_autoencoder():
    images = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    detector, state = fitted(images, variance=0.5)
    axes = np.moveaxis(np.asarray(state.axes), 0, -1)
    other = fre(tiny.bank(), layer="layer2", latent=axes.shape[-1])
    spec = spec_for(other, FROZEN, 6, (32, 32, 3))
    trained = other.init(jax.random.key(0), FROZEN, spec)
    best = {"weight": axes, "encoder_bias": -np.einsum("hwck,hwc->k", axes, state.mean), "decoder_bias": state.mean}
    trained = trained._replace(variables={"params": jax.tree.map(jnp.asarray, best)})
    ours, theirs = (predict(each, of, FROZEN, images) for each, of in ((other, trained), (detector, state)))
    np.testing.assert_allclose(ours.map, theirs.map, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-4)
    # no step lowers the loss
    stepped, info = jax.jit(other.phases(spec)[0].update)(jax.random.key(0), trained, FROZEN, batch_of(other, FROZEN, images))
    moments = [np.abs(leaf).max() for leaf in jax.tree.leaves(stepped.optimizer[0].mu)]
    assert max(moments) < 1e-4 * float(info["loss"])


def test_refusals():
    images = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    with pytest.raises(UserError, match="the 4 training images have the same features"):
        fitted(np.repeat(images, 4, axis=0))
    with pytest.raises(UserError, match="pooling=9 is larger than the grid of layer2, 4 x 4"):
        fitted(images, pooling=9)
    with pytest.raises(UserError, match="must be 'fre' or 'nll'"):
        fitted(images, score="both")
