"""DSR: its codebook's moving means, the anomalies among codes, its phases; tests/parity has the other codes' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.autoencoder.dsr import dsr
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from iadjax.nn.quantized import VectorQuantizer
from iadjax.nn.unet import InstanceUNet
from iadjax.synthesis.latent_codes import anomalous_codes, disturbed_levels
from tests.direct import phases, spec_for
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY = jax.random.key(0)


def test_codes_are_moving_means_of_the_features_next_to_them():
    rng = np.random.default_rng(0)
    z, codes = rng.normal(size=(3, 2, 2, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    codebook = {"embedding": codes, "size": np.full(5, 2, np.float32), "total": 2 * codes}
    valid = np.array([True, True, False])
    network = VectorQuantizer(5, decay=0.9, revive=0.0)
    (found, commitment), changed = network.apply({"codebook": codebook}, z, valid, mutable="codebook")
    nearest = np.argmin(((z[..., None, :].astype(np.float64) - codes) ** 2).sum(-1), -1)
    np.testing.assert_allclose(found, codes[nearest], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(commitment, ((z - codes[nearest]) ** 2).mean((1, 2, 3)), rtol=1e-5)
    # the padded row moves nothing
    counts = np.bincount(nearest[:2].ravel(), minlength=5)
    sums = np.stack([z[:2][nearest[:2] == code].sum(0) for code in range(5)])
    size, total = 0.9 * 2 + 0.1 * counts, 0.9 * 2 * codes + 0.1 * sums
    np.testing.assert_allclose(changed["codebook"]["size"], size, rtol=1e-5)
    np.testing.assert_allclose(changed["codebook"]["embedding"], total / size[:, None], rtol=1e-4, atol=1e-6)
    # without `valid` the codes stay, and the gradient passes straight through
    gradient = jax.grad(lambda x: jnp.sum(network.apply({"codebook": codebook}, x)[0] * 3))(z)
    np.testing.assert_array_equal(gradient, np.full_like(z, 3))


def test_a_code_that_is_not_used_moves_to_a_feature_of_a_real_row():
    z = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    codes = np.full((6, 4), 50, np.float32)
    codebook = {"embedding": codes, "size": np.zeros(6, np.float32), "total": 0 * codes}
    valid = np.array([False, True])
    network = VectorQuantizer(6, revive=0.03)
    _, changed = network.apply({"codebook": codebook}, z, valid, KEY, mutable="codebook")
    # all but the first one, which all features are next to
    moved = np.asarray(changed["codebook"]["embedding"])[1:]
    distance = np.abs(moved[:, None] - z[1].reshape(1, -1, 4)).max(-1).min(1)
    assert np.all(distance < 1e-6) and len(np.unique(moved, axis=0)) > 1


def test_anomalous_codes_are_among_the_nearest_but_not_the_next():
    rng = np.random.default_rng(0)
    z, codes = rng.normal(size=(2, 16, 16, 4)).astype(np.float32), rng.normal(size=(40, 4)).astype(np.float32)
    found = np.asarray(anomalous_codes(KEY, jnp.asarray(z), jnp.asarray(codes), jnp.asarray([0.3, 1.0], jnp.float32)))
    order = np.argsort(((z[..., None, :].astype(np.float64) - codes) ** 2).sum(-1), -1)
    code = np.argmin(((found[..., None, :] - codes) ** 2).sum(-1), -1)
    rank = np.argmax(order == code[..., None], -1)
    # 5 % of 40 codes are left out; 30 % of them and one end at rank 12, all but the last at 38
    assert (rank[0].min(), rank[0].max()) == (2, 12)
    assert (rank[1].min(), rank[1].max()) == (2, 38)


def test_anomalies_are_where_the_mask_is_on_one_level_or_both():
    codebook = {name: {"embedding": jnp.arange(40.0).reshape(40, 1)} for name in ("vq_vae_top", "vq_vae_bot")}
    seen = []

    def discrete(method, *args):
        seen.append((method, args))
        if method == "low":
            return jnp.zeros((40, 8, 8, 1)), jnp.zeros((40, 4, 4, 1))
        # what the high level sees of the low one is visible in its features
        return 0 * args[0] + jnp.max(args[1], axis=(1, 2, 3), keepdims=True) if method == "high" else args[0]

    mask = np.zeros((40, 32, 32), np.uint8)
    mask[:, :3, :3] = 1
    (low, high), normal, shown = disturbed_levels(KEY, discrete, codebook, jnp.zeros((40, 32, 32, 3)), jnp.asarray(mask), 0.5)
    assert not np.any(normal[0]) and not np.any(normal[1])
    assert not np.any(low[:, 1:]) and not np.any(low[:, :, 1:])
    changed_low, changed_high = np.asarray(low[:, 0, 0, 0] > 0), np.asarray(high[:, 0, 0, 0] != high[:, 5, 5, 0])
    assert np.all(changed_low | changed_high)
    both = changed_low & changed_high
    assert 10 <= both.sum() <= 30 and (changed_low & ~both).sum() >= 3 and (changed_high & ~both).sum() >= 3
    # the high level sees the low one's anomalies in both alone
    np.testing.assert_array_equal(np.asarray(high[:, 5, 5, 0]) > 0, both)
    # the mask is that of the coarsest grid that was changed: 8 pixels of the low level, 4 of the high one
    np.testing.assert_array_equal(np.asarray(shown).sum((1, 2)), np.where(changed_low, 64, 16))


def test_phases_draw_what_they_need():
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    codebook, restore, refine = phases(dsr(codebook_images="train", anomaly_prob=1.0, rotate_prob=0.0))
    assert [phase.name for phase in (codebook, restore, refine)] == ["codebook", "restore", "refine"]
    # a fit that goes on from another run keeps its codebooks
    assert (codebook.when, restore.when, refine.when) == ("fresh", "always", "always")
    np.testing.assert_array_equal(codebook.augment(np.random.default_rng(0), image, None)["original"], image)
    drawn = restore.augment(np.random.default_rng(1), image, None)
    np.testing.assert_array_equal(drawn["original"], image)
    blot = refine.augment(np.random.default_rng(1), image, None)
    inside = blot["mask"] > 0
    np.testing.assert_array_equal(blot["augmented"][~inside], image[~inside])
    # one colour, mixed with the image: what is left of it has the image's differences
    rest = np.ptp(blot["augmented"][inside], axis=0) / np.ptp(image[inside], axis=0)
    assert inside.any() and np.ptp(rest) < 1e-5 and rest[0] < 0.8
    # drawn textures are no training image
    textures, *_ = phases(dsr())
    assert np.abs(textures.augment(np.random.default_rng(0), image, None)["original"] - image).mean() > 0.05


def test_sizes_are_those_of_the_authors():
    params = jax.eval_shape(InstanceUNet(64, 2).init, KEY, jax.ShapeDtypeStruct((1, 32, 32, 6), jnp.float32))["params"]
    assert params["encoder_block4_3"]["kernel"].shape == (3, 3, 256, 256)
    assert params["decoder_db1_0"]["kernel"].shape == (3, 3, 512, 256)
    detector = dsr(dimension=4, width=4, hidden=2, inner=2, segment_width=2, codes=8)
    state = harness.empty_state(detector, {}, 64)
    assert state.discrete.variables["codebook"]["vq_vae_bot"]["embedding"].shape == (8, 4)
    # the discrete autoencoder alone, as the authors publish it
    shapes = {"_embedding.weight": (8, 4), "_ema_w": (8, 4), "_ema_cluster_size": (8,)}
    tensors = {f"vq._vq_vae_{level}.{name}": np.ones(shape) for level in ("top", "bot") for name, shape in shapes.items()}
    with pytest.raises(UserError, match="missing a tensor for discrete/decoder_b"):
        from_torch("dsr", tensors, state)


def test_bad_options_are_refused():
    for options, match in (
        ({"codes": 1}, "codes must be at least 2"),
        ({"min_strength": 1.5}, "min_strength"),
        ({"pool_size": 2}, "pool_size must be a positive odd number"),
        ({"restrict_levels": 4}, "restrict_levels"),
    ):
        with pytest.raises(UserError, match=match):
            dsr(**options)
    detector = dsr()
    with pytest.raises(UserError, match="multiples of 32"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (48, 48, 3)))
