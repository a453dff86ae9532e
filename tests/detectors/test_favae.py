"""FAVAE: errors of image and features by NumPy, the layers, refusals; tests/parity has open-iad's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.autoencoder.favae import FeatureAugmentedVae, favae
from iadjax.errors import UserError
from tests.direct import batch_of, spec_for
from tests.parity import harness
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY, LAYERS = jax.random.key(0), ("layer1", "layer2")


def test_loss_and_maps_are_squared_errors():
    detector = favae(pyramid(), layers=LAYERS, width=1, latent=3, beta=2.0, sigma=0.0)
    frozen, rng = {"backbone": pyramid_variables()}, np.random.default_rng(0)
    images = rng.random((2, 64, 64, 3), np.float32)
    state = harness.empty_state(detector, frozen, 64)
    state = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.3, leaf.shape), leaf.dtype), state)
    batch = batch_of(detector, frozen, images, valid=[True, False])
    network = FeatureAugmentedVae(1, 3, (24, 24))
    (phase,) = detector.phases(spec_for(detector, frozen, 2, (64, 64, 3)))
    noise = jax.random.normal(KEY, (2, 3))

    def program(state, batch, noise):
        drawn, _ = network.apply(state.variables, batch.image, noise, batch.valid, mutable="batch_stats")
        plain = network.apply(state.variables, batch.image, 0 * noise)
        info = phase.update(KEY, state, frozen, batch)[1]
        return drawn, plain, info, detector.predict(state, frozen, batch)

    drawn, plain, info, found = jax.jit(program)(state, batch, noise)

    def errors(image, levels):
        maps = [((np.asarray(image, np.float64) - images) ** 2).sum(-1)]
        for level, truth in zip(levels, batch.features, strict=True):
            # the decoder's activations are twice as fine as this network's levels
            assert level.shape[1] == 2 * truth.shape[1]
            maps.append(((np.asarray(ops.resize(level, truth.shape[1:3]), np.float64) - truth) ** 2).sum(-1))
        return maps

    image, levels, mean, log_variance = drawn
    truth = [each[0].sum() for each in errors(image, levels)]
    m, v = np.asarray(mean[0], np.float64), np.asarray(log_variance[0], np.float64)
    kl = (m**2 + np.exp(v) - v - 1).sum()
    np.testing.assert_allclose(info["loss_image"], truth[0], rtol=1e-5)
    np.testing.assert_allclose(info["loss_features"], sum(truth[1:]), rtol=1e-5)
    np.testing.assert_allclose(info["loss_kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(info["loss"], sum(truth) + kl, rtol=1e-5)
    image, levels, *_ = plain
    maps = sum(ops.resize(each[..., None].astype(np.float32), (64, 64))[..., 0] for each in errors(image, levels))
    np.testing.assert_allclose(found.map, maps, rtol=1e-4)
    np.testing.assert_allclose(found.score, found.map.max((1, 2)))


def test_larger_images_have_more_layers():
    """Names and channels for 128 pixels are those of open-iad (tests/parity); 256 pixels have one halving more on each side."""
    shapes = {
        side: jax.eval_shape(FeatureAugmentedVae(8, 5, (3, 3, 3)).init, KEY, jnp.zeros((1, side, side, 3)), jnp.zeros((1, 5)))[
            "params"
        ]
        for side in (128, 256)
    }
    assert len(shapes[256]) - len(shapes[128]) == 4
    assert [shapes[128][f"adapter_{i}_0"]["kernel"].shape[2] for i in range(3)] == [8, 16, 32]
    assert [shapes[256][f"adapter_{i}_0"]["kernel"].shape[2] for i in range(3)] == [8, 8, 16]


def test_bad_options_are_refused():
    for options, match in (({"latent": 0}, "latent"), ({"beta": -1.0}, "beta"), ({"layers": ("layer9",)}, "layer9")):
        with pytest.raises(UserError, match=match):
            favae(pyramid(), **{"layers": LAYERS, **options})
    detector = favae(pyramid(), layers=LAYERS)
    frozen = {"backbone": pyramid_variables()}
    for shape in ((64, 128, 3), (96, 96, 3)):
        with pytest.raises(UserError, match="favae needs squares"):
            detector.init(KEY, frozen, spec_for(detector, frozen, 2, shape))
