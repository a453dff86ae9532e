"""AE-SSIM and AE-L2: windows of an image, both residuals, the loss of drawn patches; tests/parity has the known code's maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import losses
from iadjax.detectors.autoencoder.ae import Autoencoder, ae, residual, restored_image
from iadjax.errors import UserError
from iadjax.nn.autoencoder import halvings
from iadjax.synthesis.patches import random_patches
from tests.direct import batch_of, spec_for
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")

OPTIONS = {"width": 2, "latent": 3, "patch": 64, "stride": 16, "crops": 2, "steps": 2}
KEY = jax.random.key(0)


def test_an_image_is_restored_by_the_mean_of_its_windows():
    x = np.random.default_rng(0).random((2, 40, 52, 3))
    total, number = np.zeros_like(x), np.zeros((40, 52, 1))
    for i in (0, 8):
        for j in (0, 16, 20):
            patch = x[:, i : i + 32, j : j + 32]
            total[:, i : i + 32, j : j + 32] += patch * np.arange(32)[:, None, None] + patch.mean((1, 2, 3), keepdims=True)
            number[i : i + 32, j : j + 32] += 1

    def network(patch):
        return patch * jnp.arange(32, dtype=jnp.float32)[None, :, None, None] + patch.mean((1, 2, 3), keepdims=True)

    found = restored_image(network, jnp.asarray(x, jnp.float32), 32, 16)
    np.testing.assert_allclose(found, total / number, rtol=1e-5)


def test_map_score_and_loss_are_the_networks():
    """Of the loss "l2": the residual of restored windows, and the mean squared error of the patches of real rows."""
    detector, network, images = (
        ae(loss="l2", **OPTIONS),
        Autoencoder(2, 3),
        np.random.default_rng(0).random((2, 72, 64, 3), np.float32),
    )
    spec = spec_for(detector, {}, 2, (72, 64, 3))
    rng, (phase,) = np.random.default_rng(1), detector.phases(spec)
    state = harness.empty_state(detector, {}, 72)
    state = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype), state)
    patches = np.stack([phase.augment(rng, image, None)["patches"] for image in images])
    assert patches.shape == (2, 2, 64, 64, 3)

    def program(state, images, patches):
        batch = batch_of(detector, {}, images, extra={"patches": patches}, valid=[True, False])
        restored = restored_image(lambda x: network.apply(state.variables, x), images, 64, 16)
        parts = network.apply(state.variables, patches[0])
        return phase.update(KEY, state, {}, batch)[1]["loss"], detector.predict(state, {}, batch), restored, parts

    loss, found, restored, parts = jax.jit(program)(state, images, patches)
    np.testing.assert_allclose(loss, np.mean((patches[0] - parts) ** 2), rtol=1e-5)
    np.testing.assert_allclose(found.map, np.abs(images - restored).mean(-1), atol=1e-6)
    np.testing.assert_allclose(found.score, found.map.max((1, 2)))
    similarity = residual(images, restored, "ssim").mean((1, 2))
    np.testing.assert_allclose(similarity, losses.ssim(images, restored), rtol=1e-5)


def test_patches_come_from_inside_the_turned_image():
    # no black corner of a turned image comes into a patch
    image = np.full((50, 70, 3), 0.6, np.float32)
    for seed in range(20):
        patches = random_patches(np.random.default_rng(seed), image, 3, 24, rotate_prob=1.0)
        assert patches.shape == (3, 24, 24, 3) and patches.dtype == np.float32
        np.testing.assert_allclose(patches, 0.6, atol=1e-5)
    image = np.random.default_rng(0).random((9, 9, 3), np.float32)
    (flipped,) = random_patches(np.random.default_rng(0), image, 1, 9, rotate_prob=0.0, flip_prob=1.0)
    np.testing.assert_array_equal(flipped, image[::-1, ::-1])
    # too small to be turned
    (whole,) = random_patches(np.random.default_rng(0), image, 1, 9, rotate_prob=1.0, flip_prob=0.0)
    np.testing.assert_array_equal(whole, image)


def test_the_layers_are_those_of_table_1():
    """A patch of 128: four convolutions of stride 2 among nine; one of 256 has one more."""
    assert [halvings(side) for side in (64, 128, 256, 32, 96, 130)] == [3, 4, 5, 0, 0, 0]
    shapes = jax.eval_shape(Autoencoder(32, 100).init, KEY, jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32))["params"]
    kernels = {
        name: [(key, *leaf["kernel"].shape[2:]) for key, leaf in sorted(part.items()) if "kernel" in leaf]
        for name, part in shapes.items()
    }
    assert kernels["encoder"] == [
        ("conv1", 3, 32), ("conv2", 32, 32), ("conv3", 32, 32), ("conv4", 32, 64), ("conv5", 64, 64), ("conv6", 64, 128),
        ("conv7", 128, 64), ("conv8", 64, 32), ("latent", 32, 100),
    ]  # fmt: skip
    wide = jax.eval_shape(Autoencoder(32, 100).init, KEY, jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))["params"]
    assert {part: len(wide[part]) - len(shapes[part]) for part in shapes} == {"encoder": 1, "decoder": 1}


def test_bad_options_are_refused():
    for options, match in (
        ({"loss": "l1"}, "loss must be 'ssim' or 'l2'"),
        ({"patch": 100}, "patch must be 64, 128"),
        ({"window": 4}, "window must be a positive odd number"),
        ({"flip_prob": 1.5}, "flip_prob"),
    ):
        with pytest.raises(UserError, match=match):
            ae(**options)
    detector = ae()
    with pytest.raises(UserError, match="at least 128 pixels"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (64, 128, 3)))
