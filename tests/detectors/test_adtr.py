"""ADTR against PyTorch's own transformer layers; losses of ADTR+ and confetti noise by their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.backbones.weights import fill_by_table
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer.adtr import adtr, image_loss, pixel_loss
from iadjax.errors import UserError
from iadjax.nn.feature_transformer import Reconstruction
from iadjax.synthesis.confetti import confetti
from tests import tiny
from tests.direct import batch_of, phases, predict
from tests.parity.harness import empty_state
from tests.torch_parity import assert_close, learned_positions, positioned_layer, randomize, tensors

torch = pytest.importorskip("torch")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"stride": 8, "hidden": 8, "heads": 2, "width": 12, "num_encoder_layers": 1, "num_decoder_layers": 1}
BACKBONE = tiny.bank()
FROZEN = {"backbone": {}}
IMAGE = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
KEY = jax.random.key(1)


def built(**options):
    detector = adtr(BACKBONE, **(SMALL | {"layers": ("layer1", "layer2"), "dropout": 0.0, "epochs": 10} | options))
    return detector, empty_state(detector, FROZEN, 32)


class Torch(torch.nn.Module):
    """The paper's network (figure 2) of PyTorch's layers, which take positions only through their queries and keys."""

    def __init__(self, channels, tokens, hidden, heads, width, encoder_layers, decoder_layers):
        super().__init__()
        nn = torch.nn
        side = round(tokens**0.5)
        self.transformer = nn.Transformer(hidden, heads, encoder_layers, decoder_layers, width, 0.0, batch_first=True)
        self.transformer.encoder.norm = None
        self.input_proj, self.output_proj = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.query_embed = nn.Embedding(tokens, hidden)
        self.pos_embed = nn.Module()
        self.pos_embed.row_embed, self.pos_embed.col_embed = (nn.Embedding(side, hidden // 2) for _ in range(2))

    def forward(self, f):
        position = learned_positions(self.pos_embed.row_embed.weight, self.pos_embed.col_embed.weight)
        x = self.input_proj(f.flatten(1, 2))
        for layer in self.transformer.encoder.layers:
            x = positioned_layer(layer, x, position)
        memory, x = x, self.query_embed.weight[None].expand(len(x), -1, -1)
        for layer in self.transformer.decoder.layers:
            x = positioned_layer(layer, x, position, memory)
        return self.output_proj(self.transformer.decoder.norm(x)).reshape(f.shape)


def test_network_map_and_score_are_those_of_pytorch_s_layers():
    detector, state = built(pool_size=5, num_decoder_layers=2)
    theirs = Torch(36, 16, 8, 2, 12, 1, 2)
    randomize(theirs)
    state = from_torch("adtr", tensors(theirs), state)
    batch = batch_of(detector, FROZEN, IMAGE)
    f = torch.tensor(np.asarray(batch.features))
    with torch.no_grad():
        s = (f - theirs(f)).norm(dim=-1)
    large = torch.nn.functional.interpolate(s[:, None], (32, 32), mode="bilinear", align_corners=True)
    found = predict(detector, state, FROZEN, IMAGE)
    assert_close(found.map, large[:, 0], 1e-5)
    assert_close(found.score, torch.nn.functional.avg_pool2d(large, 5, 1).amax((1, 2, 3)), 1e-5)
    # eq. 1 and its gradients
    loss = torch.nn.functional.mse_loss(theirs(f), f)
    loss.backward()
    network = Reconstruction(8, 2, 1, 2, 12, 0.0, layer_queries=False)

    def ours(variables):
        return jnp.mean((network.apply(variables, batch.features) - batch.features) ** 2)

    value, gradients = quickly(jax.value_and_grad(ours))(state.variables)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    from iadjax.detectors.pytorch.adtr import TABLE

    named = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    expected = fill_by_table(state.variables, named, TABLE)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert_close(a, b, 1e-4) if np.abs(b).max() > 1e-6 else np.testing.assert_allclose(a, b, atol=1e-6)


def test_losses_of_both_labels():
    rng = np.random.default_rng(0)
    phi, y = rng.uniform(0.01, 3, (3, 4, 5)), rng.random((3, 4, 5)) * (rng.random((3, 4, 5)) < 0.3)
    y[2] = 0
    expected = [
        np.mean((1 - b) * a) - (0.2 * np.log(1 - np.exp(-np.mean(b * a))) if b.any() else 0)
        for a, b in zip(phi, y, strict=True)
    ]
    np.testing.assert_allclose(pixel_loss(jnp.float32(phi), jnp.float32(y), 0.2), expected, rtol=1e-5)
    q = np.sort(phi.reshape(3, -1), axis=1)[:, -3:].mean(axis=1)
    expected = [-0.2 * np.log(1 - np.exp(-q[0])), q[1], -0.2 * np.log(1 - np.exp(-q[2]))]
    np.testing.assert_allclose(image_loss(jnp.float32(phi), jnp.array([1, 0, 1]), 0.2, 3), expected, rtol=1e-5)
    # nothing is infinite where features are restored exactly
    zero = jnp.zeros((3, 4, 5))
    for loss in (lambda x: pixel_loss(x, jnp.float32(y), 0.2), lambda x: image_loss(x, jnp.array([1, 0, 1]), 0.2, 3)):
        assert np.all(np.isfinite(loss(zero))) and np.all(np.isfinite(jax.grad(lambda x, loss=loss: loss(x).sum())(zero)))


@pytest.mark.parametrize(("labels", "fraction"), [("pixel", 0.5), ("image", 0.0)])
def test_second_stage_takes_labelled_or_drawn_anomalies(labels, fraction):
    mask = np.zeros((2, 32, 32), np.uint8)
    mask[1, 8:20, 10:16] = 1
    detector, state = built(labels=labels, anomaly_fraction=fraction, alpha=0.2, k=3)
    normal, plus = phases(detector)
    assert (plus.anomaly_fraction, plus.augment is None, plus.epochs) == (fraction, fraction > 0, 300)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), state.variables)
    state = normal.finalize(KEY, state._replace(variables=variables), FROZEN)
    # drawn: the images of the batch play no part
    batch = batch_of(detector, FROZEN, 1 - IMAGE, extra={"confetti": IMAGE, "mask": mask})
    if fraction:
        batch = batch_of(detector, FROZEN, IMAGE, label=[0, 1])._replace(mask=mask)
    _, info = quickly(plus.update)(KEY, state, FROZEN, batch)
    f = np.asarray(batch_of(detector, FROZEN, IMAGE).features, np.float64)
    network = Reconstruction(8, 2, 1, 1, 12, 0.0, layer_queries=False)
    d = f - np.asarray(quickly(network.apply)(state.variables, jnp.float32(f)), np.float64)
    phi = np.sqrt(np.abs(d).mean(axis=-1) ** 2 + 1) - 1
    if labels == "pixel":
        # 4 x 4 positions of 8 pixels, by the triangle filter of a resize
        weights = np.maximum(0, 1 - np.abs((np.arange(4)[:, None] + 0.5) * 8 - np.arange(32) - 0.5) / 8)
        weights /= weights.sum(axis=1, keepdims=True)
        y = weights @ mask @ weights.T
        push = -np.log(1 - np.exp(-(y[1] * phi[1]).mean()))
        expected = (((1 - y) * phi).mean() * 2 + 0.2 * push) / 2
    else:
        q = np.sort(phi.reshape(2, -1), axis=1)[:, -3:].mean(axis=1)
        expected = (q[0] - 0.2 * np.log(1 - np.exp(-q[1]))) / 2
    np.testing.assert_allclose(info["loss"], expected, rtol=1e-4)


def test_stages_and_rate():
    detector, state = built(labels="pixel", plus_epochs=7)
    normal, plus = phases(detector)
    assert (normal.name, normal.epochs, plus.name, plus.epochs) == ("train", 10, "anomalies", 7)
    assert len(phases(built()[0])) == 1
    # moments and steps begin anew, the network stays
    later = normal.finalize(KEY, state, FROZEN)
    assert later.variables is state.variables
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(later.optimizer))


def test_confetti_is_squares_and_says_where():
    image = np.full((48, 64, 3), 0.4, np.float32)
    image[:, 32:] = 1.0
    coverage = []
    for seed in range(30):
        noised, mask = confetti(np.random.default_rng(seed), image)
        assert noised.dtype == np.float32 and noised.shape == image.shape and noised.min() >= 0 and noised.max() <= 1
        assert mask.dtype == np.uint8 and mask.any()
        changed = np.abs(noised - image).max(axis=-1)
        assert np.all(changed[mask == 0] < 1 / 255) and np.all(changed[mask == 1] >= 1 / 255)
        coverage.append(mask.mean())
        np.testing.assert_array_equal(noised, confetti(np.random.default_rng(seed), image)[0])
    # half of the image is white, and takes no noise but where all of it would vanish
    assert 0.05 < np.mean(coverage) < 0.3
    noised, mask = confetti(np.random.default_rng(0), np.ones((48, 64, 3), np.float32))
    assert mask.any() and noised.min() < 1
    detector, _ = built(labels="pixel", confetti_prob=0.0)
    extra = phases(detector)[1].augment(np.random.default_rng(0), image, None)
    assert np.array_equal(extra["confetti"], image) and not extra["mask"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 9}, "even and a multiple of detector.heads"),
        ({"labels": "pixels"}, "one of '', 'pixel' and 'image'"),
        ({"anomaly_fraction": 0.5}, "needs detector.labels"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        adtr(BACKBONE, **(SMALL | options))
