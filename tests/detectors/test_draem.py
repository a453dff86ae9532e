"""DRAEM: its synthesis by its properties, initial weights and score; tests/parity has the other codes' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.autoencoder.draem import Draem, draem
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from iadjax.nn.masked_convolution import MaskedBlock
from iadjax.nn.unet import Encoder
from iadjax.synthesis.perlin import perlin_noise
from iadjax.synthesis.perlin_texture import distort, perlin_anomaly, rotate
from iadjax.synthesis.source import draw_texture
from tests.direct import phases, predict
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")

WIDTH, SEGMENT = 3, 2


def built(size=64, **options):
    detector = draem(**{"width": WIDTH, "segment_width": SEGMENT, **options})
    return detector, harness.empty_state(detector, {}, size)


def test_a_mismatch_names_the_tensor():
    _, state = built()
    with pytest.raises(UserError, match=r"missing a tensor for decoder/db1_1/mean.*and \d+ more"):
        from_torch("draem", {"encoder.block9.0.weight": np.zeros((1, 1, 1, 1))}, state)


def test_weights_are_drawn_as_the_authors_draw_them():
    params = Encoder((128,)).init(jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32), None)["params"]
    assert np.std(params["block1_3"]["kernel"]) == pytest.approx(0.02, rel=0.03)
    assert np.std(params["block1_4"]["scale"]) == pytest.approx(0.02, rel=0.2)
    assert np.mean(params["block1_4"]["scale"]) == pytest.approx(1, abs=0.01) and not np.any(params["block1_4"]["bias"])
    # PyTorch's default
    assert 0.9 < np.abs(params["block1_3"]["bias"]).max() * (9 * 128) ** 0.5 <= 1


def test_score_pools_with_zeros_outside():
    detector, state = built(pool_size=5)
    rng = np.random.default_rng(1)

    def drawn(leaf):
        # vectors are positive, as running variances have to be
        x = rng.uniform(0.5, 1.5, leaf.shape) if leaf.ndim < 4 else rng.normal(size=leaf.shape) / np.prod(leaf.shape[:3]) ** 0.5
        return jnp.asarray(x, leaf.dtype)

    state = state._replace(variables=jax.tree.map(drawn, state.variables))
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    prediction = predict(detector, state, {}, image)
    padded = np.pad(np.asarray(prediction.map, np.float64), ((0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2)).mean((-2, -1))
    np.testing.assert_allclose(prediction.score, windows.max((1, 2)), rtol=1e-5)


def test_anomalies_are_blended_inside_the_mask_only():
    image = np.random.default_rng(0).random((48, 40, 3)).astype(np.float32)
    sizes = []
    for seed in range(30):
        made, mask = perlin_anomaly(np.random.default_rng(seed), image, lambda rng, size: np.ones((*size, 3), np.float32))
        assert made.dtype == np.float32 and mask.dtype == np.uint8 and made.min() >= 0 and made.max() <= 1
        assert np.array_equal(made[mask == 0], image[mask == 0])
        again, _ = perlin_anomaly(np.random.default_rng(seed), image, lambda rng, size: np.ones((*size, 3), np.float32))
        assert np.array_equal(made, again)
        sizes.append(mask.mean())
    assert 0.02 < np.mean(sizes) < 0.4


def test_blend_is_equation_2():
    image = np.full((32, 32, 3), 0.25, np.float32)
    made, mask = perlin_anomaly(np.random.default_rng(3), image, draw_texture, beta=(1.0, 1.0))
    np.testing.assert_allclose(made, image, atol=1e-6)
    made, mask = perlin_anomaly(np.random.default_rng(3), image, draw_texture, beta=(0.0, 0.0), threshold=-2.0)
    assert mask.all() and np.abs(made - image).max() > 0.1


def test_half_of_the_images_get_an_anomaly():
    detector, _ = built(rotate_prob=0.0)
    image = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    made = [phases(detector)[0].augment(np.random.default_rng(i), image, None) for i in range(200)]
    changed = sum(not np.array_equal(each["augmented"], image) for each in made)
    assert 60 <= changed <= 110
    assert all(np.array_equal(each["original"], image) for each in made)


def test_perlin_noise_is_smooth_and_zero_on_its_lattice():
    noise = perlin_noise(np.random.default_rng(0), (64, 48), (8, 4))
    assert noise.shape == (64, 48) and np.abs(noise).max() <= 1.01 and noise.std() > 0.1
    np.testing.assert_allclose(noise[::8, ::12], 0, atol=1e-6)
    assert np.abs(np.diff(noise, axis=0)).max() < 0.5


def test_rotation_and_distortions_keep_shape_and_range():
    image = draw_texture(np.random.default_rng(0), (40, 24))
    np.testing.assert_allclose(rotate(image, 180), image[::-1, ::-1], atol=1e-6)
    made = [distort(np.random.default_rng(i), image) for i in range(40)]
    assert all(each.shape == image.shape and each.min() >= 0 and each.max() <= 1 for each in made)
    assert len({each.tobytes() for each in made}) == 40


@pytest.mark.parametrize("kind", ["sspcab", "ssmctb"])
def test_a_masked_block_takes_the_place_of_the_last_block_and_adds_its_loss(kind):
    network = Draem(1, 1, kind)
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    assert set(shapes["params"]["encoder"]) == {f"block{i}_{j}" for i in range(1, 5) for j in (0, 1, 3, 4)}
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 0.8, leaf.shape), leaf.dtype), shapes)

    def program(variables, image):
        encoder = {name: part["encoder"] for name, part in variables.items()}
        seen = ops.block_max(Encoder((1, 2, 4, 8)).apply(encoder, image, None)[-1], 2)
        predicted = MaskedBlock(kind).apply({"params": variables["params"]["block"]}, seen)
        return network.apply(variables, image)[2], jnp.mean((predicted - seen) ** 2, axis=(1, 2, 3))

    found, truth = jax.jit(program)(variables, image)
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    assert found.shape == (2,) and found.min() > 0


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="block must be one of sspcab, ssmctb"):
        built(block="se")
    with pytest.raises(UserError, match="pool_size must be a positive odd number"):
        built(pool_size=4)
    with pytest.raises(UserError, match="multiples of 32"):
        built(size=48)
