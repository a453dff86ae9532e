"""DRAEM against a PyTorch module written from the paper's figures, and the synthesis by its properties."""

import jax
import numpy as np
import pytest

from iadjax import backbones, losses
from iadjax.detector import DataSpec
from iadjax.detectors.autoencoder.draem import Draem, draem
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from iadjax.synthesis.perlin import perlin_noise
from iadjax.synthesis.perlin_texture import distort, perlin_anomaly, rotate
from iadjax.synthesis.source import draw_texture
from tests import torch_parity as parity

WIDTH, SEGMENT = 3, 2


def torch_draem(bgr):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def double(a, b, c):
        return nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1),
            nn.BatchNorm2d(b),
            nn.ReLU(),
            nn.Conv2d(b, c, 3, padding=1),
            nn.BatchNorm2d(c),
            nn.ReLU(),
        )

    def up(a, b):
        layer = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(layer, nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())

    def encoder(channels, widths):
        return nn.ModuleDict(
            {f"block{i}": double(a, b, b) for i, (a, b) in enumerate(zip((channels, *widths), widths, strict=False), 1)}
        )

    def encode(module, x):
        outputs = []
        for i, block in enumerate(module.values()):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            outputs.append(x)
        return outputs

    w, s = WIDTH, SEGMENT
    decoder = nn.ModuleDict()
    for i, (a, b) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1)), 1):
        decoder[f"up{i}"], decoder[f"db{i}"] = up(a * w, a * w), double(a * w, a * w, b * w)
    decoder["fin_out"] = nn.Sequential(nn.Conv2d(w, 3, 3, padding=1))
    segment = nn.ModuleDict()
    for name, a, b, skip in (("_b", 8, 8, 8), ("1", 8, 4, 8), ("2", 4, 2, 4), ("3", 2, 1, 2), ("4", 1, 1, 1)):
        segment[f"up{name}"], segment[f"db{name}"] = up(a * s, b * s), double((b + skip) * s, b * s, b * s)
    segment["fin_out"] = nn.Sequential(nn.Conv2d(s, 2, 3, padding=1))

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder(3, [w, 2 * w, 4 * w, 8 * w, 8 * w])
            self.decoder = decoder
            self.encoder_segment = encoder(6, [s, 2 * s, 4 * s, 8 * s, 8 * s, 8 * s])
            self.decoder_segment = segment

        def forward(self, x):
            """RGB in and out; the tensors are those of a network that sees BGR and the restored image first, or neither."""
            given = x.flip(1) if bgr else x
            y = encode(self.encoder, given)[-1]
            for i in range(1, 5):
                y = self.decoder[f"db{i}"](self.decoder[f"up{i}"](y))
            restored = self.decoder["fin_out"](y)
            *skips, y = encode(self.encoder_segment, torch.cat([restored, given] if bgr else [given, restored], 1))
            for name in ("_b", "1", "2", "3", "4"):
                y = torch.cat([self.decoder_segment[f"up{name}"](y), skips.pop()], 1)
                y = self.decoder_segment[f"db{name}"](y)
            return (restored.flip(1) if bgr else restored), self.decoder_segment["fin_out"](y)

    module = Whole()
    parity.randomize(module)
    return module


def named(module, official):
    tensors = parity.tensors(module)
    if official:
        return tensors
    kinds = {
        "encoder": "reconstructive",
        "decoder": "reconstructive",
        "encoder_segment": "discriminative",
        "decoder_segment": "discriminative",
    }
    return {f"model.{kinds[name.split('.')[0]]}_subnetwork.{name}": tensor for name, tensor in tensors.items()}


def built(size=64, **options):
    backbone = backbones.backbone("filter_bank")
    detector = draem(backbone, **{"width": WIDTH, "segment_width": SEGMENT, **options})
    return detector, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), {}, DataSpec(4, (size, size, 3), ("a",)))


def example():
    rng = np.random.default_rng(0)
    image, target = (rng.random((6, 64, 64, 3)).astype(np.float32) for _ in range(2))
    return image, target, (rng.random((6, 64, 64)) < 0.3).astype(np.int32)


@pytest.mark.parametrize("official", [True, False])
def test_networks_equal_pytorch(official):
    pytest.importorskip("torch")
    module = torch_draem(bgr=official).eval()
    _, state = built()
    variables = from_torch("draem", named(module, official), state).variables
    image = example()[0]
    restored, logits = jax.jit(Draem(WIDTH, SEGMENT).apply)(variables, image)
    theirs = module(parity.to_torch(image))
    parity.assert_close(restored, parity.from_torch(theirs[0]), 1e-4)
    parity.assert_close(logits, parity.from_torch(theirs[1]), 1e-4)


@pytest.mark.slow
def test_gradients_equal_pytorch():
    torch = pytest.importorskip("torch")
    module = torch_draem(bgr=True)
    _, state = built()
    variables = from_torch("draem", named(module, True), state).variables
    network, (image, target, mask) = Draem(WIDTH, SEGMENT), example()
    # in float64: twenty norms in a row make a float32 gradient a matter of rounding
    module.double().train()
    restored, logits = module(parity.to_torch(image).double())
    p = torch.softmax(logits, 1)
    chosen = torch.where(torch.from_numpy(mask) == 1, p[:, 1], p[:, 0])
    # smoothing of 1e-5 changes the loss by less than the tolerance
    value = ((restored - parity.to_torch(target)) ** 2).mean() - ((1 - chosen) ** 2 * (chosen + 1e-5).log()).mean()
    value.backward()
    theirs = {**named(module, True), **{name: p.grad.numpy() for name, p in module.named_parameters()}}
    expected = from_torch("draem", theirs, state).variables["params"]

    def loss(params):
        (restored, logits), _ = network.apply({**stats, "params": params}, image, np.ones(6, bool), mutable="batch_stats")
        return (losses.mse(restored, target) + losses.focal(logits, mask)).mean()

    with jax.enable_x64(True):
        params, image, target = jax.tree.map(lambda x: np.asarray(x).astype(np.float64), (variables["params"], image, target))
        stats = {"batch_stats": variables["batch_stats"]}
        mine, gradients = jax.device_get(jax.jit(jax.value_and_grad(loss))(params))
    np.testing.assert_allclose(mine, value.item(), rtol=1e-3)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * max(np.abs(b).max(), 1e-3 * largest)


def test_a_mismatch_names_the_tensor():
    _, state = built()
    with pytest.raises(UserError, match=r"missing decoder.db1.1.running_mean.*and \d+ more"):
        from_torch("draem", {"encoder.block9.0.weight": np.zeros((1, 1, 1, 1))}, state)


def test_score_pools_with_zeros_outside():
    detector, state = built(pool_size=5)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    prediction = jax.jit(detector.predict)(state, {}, image)
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
    made = [detector.phases[0].augment(np.random.default_rng(i), image) for i in range(200)]
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


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(UserError, match="pool_size odd"):
        built(pool_size=4)
    with pytest.raises(UserError, match="multiples of 32"):
        built(size=48)
    with pytest.raises(UserError, match="no images in"):
        built(textures=str(tmp_path))
