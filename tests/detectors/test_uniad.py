"""UniAD against a PyTorch module written from the paper's description, and its mask, jitter and map by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones, losses
from iadjax.detector import Batch, DataSpec
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer import uniad as module
from iadjax.detectors.transformer.uniad import Reconstruction, uniad
from iadjax.errors import UserError
from tests import torch_parity as parity

SIDE, CHANNELS, HIDDEN, HEADS, WIDTH, WINDOW = 6, 10, 16, 4, 24, 3


def torch_reconstruction():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self, query):
            super().__init__()
            self.self_attn = nn.MultiheadAttention(HIDDEN, HEADS)
            self.linear1, self.linear2 = nn.Linear(HIDDEN, WIDTH), nn.Linear(WIDTH, HIDDEN)
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            if query:
                self.learned_embed = nn.Embedding(SIDE * SIDE, HIDDEN)
                self.multihead_attn = nn.MultiheadAttention(HIDDEN, HEADS)
                self.norm3 = nn.LayerNorm(HIDDEN)

        def forward(self, x, memory, position, mask):
            def ff(y):
                return self.linear2(torch.relu(self.linear1(y)))

            if hasattr(self, "learned_embed"):
                y = self.learned_embed.weight[:, None].expand(-1, x.shape[1], -1)
                y = self.norm1(y + self.self_attn(y + position, memory + position, memory, attn_mask=mask)[0])
                y = self.norm2(y + self.multihead_attn(y + position, x + position, x, attn_mask=mask)[0])
                return self.norm3(y + ff(y))
            y = self.norm1(x + self.self_attn(x + position, x + position, x, attn_mask=mask)[0])
            return self.norm2(y + ff(y))

    class Stack(nn.Module):
        def __init__(self, query):
            super().__init__()
            self.layers = nn.ModuleList([Layer(query) for _ in range(2)])
            if query:
                self.norm = nn.LayerNorm(HIDDEN)

    class Position(nn.Module):
        def __init__(self):
            super().__init__()
            self.row_embed, self.col_embed = nn.Embedding(SIDE, HIDDEN // 2), nn.Embedding(SIDE, HIDDEN // 2)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.input_proj, self.output_proj = nn.Linear(CHANNELS, HIDDEN), nn.Linear(HIDDEN, CHANNELS)
            self.transformer = nn.ModuleDict({"encoder": Stack(False), "decoder": Stack(True)})
            self.pos_embed = Position()

        def forward(self, x):
            tokens = x.flatten(2).permute(2, 0, 1)
            mask = torch.zeros(SIDE * SIDE, SIDE * SIDE)
            for a in range(SIDE * SIDE):
                for b in range(SIDE * SIDE):
                    if max(abs(a // SIDE - b // SIDE), abs(a % SIDE - b % SIDE)) <= WINDOW // 2:
                        mask[a, b] = -torch.inf
            places = [(y, z) for y in range(SIDE) for z in range(SIDE)]
            position = torch.stack(
                [torch.cat([self.pos_embed.col_embed.weight[z], self.pos_embed.row_embed.weight[y]]) for y, z in places]
            )[:, None]
            y = self.input_proj(tokens)
            for layer in self.transformer["encoder"].layers:
                y = layer(y, y, position, mask)
            memory = y
            for layer in self.transformer["decoder"].layers:
                y = layer(y, memory, position, mask)
            y = self.output_proj(self.transformer["decoder"].norm(y))
            return y.permute(1, 2, 0).reshape(x.shape)

    whole = Whole()
    parity.randomize(whole)
    return whole


def test_reconstruction_equals_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch_reconstruction()
    x = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, CHANNELS)).astype(np.float32)
    ours = Reconstruction(HIDDEN, HEADS, 2, 2, WIDTH, 0.1, WINDOW)
    _, _, state = built(
        hidden=HIDDEN, heads=HEADS, num_encoder_layers=2, num_decoder_layers=2, width=WIDTH, neighbor_size=WINDOW
    )
    state = state._replace(variables=jax.jit(ours.init)(jax.random.key(0), x))
    named = {f"module.reconstruction.{name}": tensor for name, tensor in parity.tensors(theirs).items()}
    named["module.backbone._conv_stem.weight"] = np.zeros(1)
    variables = from_torch("uniad", named, state).variables
    output = theirs(parity.to_torch(x))
    parity.assert_close(jax.jit(ours.apply)(variables, x), parity.from_torch(output), 1e-4)
    value = torch.nn.functional.mse_loss(output, parity.to_torch(x))
    value.backward()

    def loss(params):
        return losses.mse(ours.apply({"params": params}, x), x).mean()

    mine, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
    np.testing.assert_allclose(mine, value.item(), rtol=1e-4)
    theirs_gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    expected = from_torch("uniad", theirs_gradients, state).variables["params"]
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7
    named["module.reconstruction.more"] = np.zeros(1)
    with pytest.raises(UserError, match="unknown more"):
        from_torch("uniad", named, state)


def built(**options):
    backbone = backbones.backbone("filter_bank")
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = uniad(
        backbone, **{"stride": 8, "hidden": 8, "heads": 2, "width": 8, "neighbor_size": 3, "epochs": 10, **options}
    )
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, DataSpec(4, (64, 64, 3), ("a",), 0, 2)),
    )


def test_mask_by_hand():
    mask = module._neighbor_mask(1, 5, 3)
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
    ]
    assert np.array_equal(np.isneginf(mask), np.array(expected, bool))
    assert np.all(module._neighbor_mask(2, 2, 0) == 0)
    with pytest.raises(UserError, match="hides the whole"):
        built(stride=32)


def test_score_is_the_maximum_of_the_pooled_map():
    detector, frozen, state = built(pool_size=5)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    prediction = jax.jit(detector.predict)(state, frozen, image)
    maps = np.asarray(prediction.map, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (5, 5), (1, 2)).mean((-2, -1))
    np.testing.assert_allclose(prediction.score, windows.max((1, 2)), rtol=1e-5)


def test_jitter_has_the_paper_s_size(monkeypatch):
    # with dropout 0 the loss of a batch differs from that without jitter, and probability 0 switches it off
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    zeros = np.zeros(2, np.int32)
    batch = Batch(image, zeros, zeros, zeros, zeros, np.array([True, True]))
    seen = {}
    apply = Reconstruction.apply

    def spy(self, variables, tokens, **options):
        jax.debug.callback(lambda x: seen.setdefault("tokens", []).append(np.asarray(x, np.float64)), tokens)
        return apply(self, variables, tokens, **options)

    monkeypatch.setattr(Reconstruction, "apply", spy)
    for probability in (0.0, 1.0):
        detector, frozen, state = built(jitter_prob=probability, dropout=0.0, jitter_scale=2.0)
        jax.jit(detector.phases[0].update)(jax.random.key(5), state, frozen, batch)
        seen[probability] = np.concatenate(seen.pop("tokens"))
    noise = seen[1.0] - seen[0.0]
    expected = 2.0 * np.linalg.norm(seen[0.0], axis=-1) / noise.shape[-1]
    ratio = np.sqrt(np.mean(noise**2, axis=-1)) / expected
    assert abs(ratio.mean() - 1) < 0.05


def test_rate_drops_once_and_gradients_are_clipped():
    import optax

    detector, _, state = built()
    # the rate is a tenth after 8 of 10 epochs of 2 steps
    schedule = module.step_decay(1e-4, 0.1, 0.8 * 10 * jnp.int32(2))
    np.testing.assert_allclose([schedule(15), schedule(16)], [1e-4, 1e-5], rtol=1e-6)
    assert len(state.optimizer) == 2 and isinstance(state.optimizer[0], optax.EmptyState)
    assert detector.phases[0].epochs == 10


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="multiple of heads"):
        built(hidden=9)
