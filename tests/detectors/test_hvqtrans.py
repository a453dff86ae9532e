"""HVQ-Trans against a PyTorch module of the paper's facts, with the authors' names; moving codes in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.pytorch.hvqtrans import TABLE, prepare
from iadjax.detectors.transformer.hvqtrans import HVQTrans, hvqtrans
from iadjax.errors import UserError
from iadjax.nn.switched import SwitchedQuantizer
from tests import tiny
from tests.direct import batch_of, spec_for
from tests.torch_parity import assert_close, learned_positions, positioned_layer, randomize, tensors

torch = pytest.importorskip("torch")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"layers": ("layer1", "layer2"), "stride": 8, "hidden": 8, "heads": 2, "width": 12, "num_layers": 2, "codes": 5}
BACKBONE, FROZEN, KEY = tiny.bank(), {"backbone": {}}, jax.random.key(1)
IMAGE = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
CATEGORY = np.array([2, 0, 1], np.int32)


def built(categories="abc", **options):
    detector = hvqtrans(BACKBONE, **(SMALL | {"dropout": 0.0} | options))
    spec = spec_for(detector, FROZEN, 6, (32, 32, 3), categories=tuple(categories))
    shapes = jax.eval_shape(lambda: detector.init(KEY, FROZEN, spec))
    return detector, spec, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


class Codes(torch.nn.Module):
    """A codebook of the authors' layout, which moves after each image."""

    def __init__(self, dimension, codes):
        super().__init__()
        embed = torch.randn(dimension, codes)
        for name, value in {"embed": embed, "cluster_size": torch.rand(codes), "embed_avg": embed.clone()}.items():
            self.register_buffer(name, value)

    def forward(self, z, move):
        code = torch.cdist(z.detach(), self.embed.T).argmin(dim=1)
        found = self.embed.T[code].clone()
        cosine = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(self.embed, dim=0)
        cost = (torch.softmax(z @ self.embed / self.embed.shape[1], dim=1) * (1 - cosine)).sum(dim=1)
        if move:
            used = torch.nn.functional.one_hot(code, self.embed.shape[1]).float()
            self.cluster_size = 0.99 * self.cluster_size + 0.01 * used.sum(dim=0)
            self.embed_avg = 0.99 * self.embed_avg + 0.01 * z.detach().T @ used
            n = self.cluster_size.sum()
            self.embed = self.embed_avg / ((self.cluster_size + 1e-5) / (n + len(self.cluster_size) * 1e-5) * n)
        return z + (found - z).detach(), ((found - z) ** 2).mean(), cost


class Torch(torch.nn.Module):
    """The paper's network (figure 2), image by image, with the authors' names."""

    def __init__(self, channels, side, hidden, heads, width, layers, codes, categories):
        super().__init__()
        nn = torch.nn
        make = {"dropout": 0.0, "batch_first": True}
        self.n = layers
        self.quantize_conv_t = nn.Conv2d(channels, hidden, 1)
        self.input_proj = nn.Linear(channels, hidden)
        self.encoder, self.decoder, self.pos_embed = nn.Module(), nn.Module(), nn.Module()
        self.encoder.layers = nn.ModuleList(nn.TransformerEncoderLayer(hidden, heads, width, **make) for _ in range(layers))
        self.decoder.layers = nn.ModuleList(nn.TransformerDecoderLayer(2 * hidden, heads, width, **make) for _ in range(layers))
        self.decoder.norm = nn.LayerNorm(2 * hidden)
        self.pos_embed.row_embed, self.pos_embed.col_embed = (nn.Embedding(side, hidden // 2) for _ in range(2))
        for i in range(layers + 1):
            books = [Codes(hidden if i == layers else 2 * hidden, codes) for _ in range(categories)]
            setattr(self, f"quantize_list_{i + 1}", nn.ModuleList(books))
        self.output_proj_list = nn.ModuleList(nn.Linear(2 * hidden, channels) for _ in range(categories))

    def forward(self, f, category, move=False):
        """`[h, w, C]` of one image: its reconstruction, the commitment, and the cost of each level."""
        position = learned_positions(self.pos_embed.row_embed.weight, self.pos_embed.col_embed.weight)
        books = [getattr(self, f"quantize_list_{i + 1}")[category] for i in range(self.n + 1)]
        levels = [self.quantize_conv_t(f.permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)]
        for layer in self.encoder.layers:
            levels.append(positioned_layer(layer, levels[-1], position))
        deepest, commitment, cost = books[-1](levels[-1][0], move)
        costs, codes = {self.n: cost}, []
        for i in reversed(range(self.n)):
            code, loss, costs[i] = books[i](torch.cat([levels[i][0], deepest], dim=1), move)
            codes.append(code[None])
            commitment = commitment + loss
        y = codes[0]
        for layer, memory in zip(self.decoder.layers, codes, strict=True):
            y = positioned_layer(layer, y, position.repeat(1, 2), memory)
        return self.output_proj_list[category](self.decoder.norm(y)[0]).reshape(f.shape), commitment, costs


@pytest.fixture(scope="module")
def pair():
    """The PyTorch module, a detector with its state, the features of the images as a tensor, and a batch of them."""
    torch.manual_seed(0)
    theirs = Torch(36, 4, 8, 2, 12, 2, 5, 3)
    randomize(theirs)
    for name, buffer in theirs.named_buffers():
        if name.endswith("cluster_size"):
            buffer.abs_()
    detector, spec, empty = built(pool_size=5, transport_weight=3.0, transport_levels=(0, 2))
    state = from_torch("hvqtrans", tensors(theirs), empty)
    batch = batch_of(detector, FROZEN, IMAGE, category=CATEGORY)
    return theirs, detector, spec, state, torch.tensor(np.asarray(batch.features)), batch


def test_map_and_score_with_the_authors_names(pair):
    theirs, detector, _, state, f, batch = pair
    with torch.no_grad():
        found = [theirs(x, k) for x, k in zip(f, CATEGORY, strict=True)]
    s = [(x - y).norm(dim=-1) + 3 * (c[0] + c[2]).reshape(4, 4) for x, (y, _, c) in zip(f, found, strict=True)]
    large = torch.nn.functional.interpolate(torch.stack(s)[:, None], (32, 32), mode="bilinear", align_corners=True)
    predict = quickly(detector.predict)
    ours = predict(state, FROZEN, batch)
    assert_close(ours.map, large[:, 0], 1e-5)
    assert_close(ours.score, torch.nn.functional.avg_pool2d(large, 5, 1).amax((1, 2, 3)), 1e-5)
    # of no known category, and of one that was not fitted: the codes that are nearest
    network = HVQTrans(3, 8, 2, 12, 0.0, 2, 5, 0.99, 0.0)

    @quickly
    def last(variables):
        taps = network.apply(variables, batch.features, batch.category, capture_intermediates=True, mutable="intermediates")[1]
        return taps["intermediates"]["encoder_layers_1"]["__call__"][0]

    # a codebook of each image's own tokens is nearest to it
    z = last(state.variables)
    codes = jnp.zeros((3, 5, 8)).at[CATEGORY].set(z[:, :5])
    book = {**state.variables["codebook"], "quantize_2": {**state.variables["codebook"]["quantize_2"], "embedding": codes}}
    state = state._replace(variables={**state.variables, "codebook": book})
    known = predict(state, FROZEN, batch)
    for unknown in (-1, 3):
        free = predict(state, FROZEN, batch._replace(category=np.full(3, unknown, np.int32)))
        np.testing.assert_array_equal(free.map, known.map)
    other = predict(state, FROZEN, batch._replace(category=CATEGORY[[1, 2, 0]]))
    assert np.abs(other.map - known.map).max() > 0.01


def test_loss_gradients_and_moved_codes_are_the_authors(pair):
    theirs, detector, spec, state, f, batch = pair
    found = [theirs(x, k, move=True) for x, k in zip(f, CATEGORY, strict=True)]
    parts = [torch.stack([((x - y) ** 2).mean() for x, (y, *_) in zip(f, found, strict=True)]).mean()]
    parts.append(0.25 * torch.stack([commitment for _, commitment, _ in found]).mean())
    sum(parts).backward()
    (phase,) = detector.phases(spec)
    new, info = quickly(phase.update)(KEY, state, FROZEN, batch)
    for name, part in zip(("loss_features", "loss_codes"), parts, strict=True):
        np.testing.assert_allclose(info[name], part.item(), rtol=1e-5)
    moved = from_torch("hvqtrans", tensors(theirs), state).variables["codebook"]
    for a, b in zip(jax.tree.leaves(new.variables["codebook"]), jax.tree.leaves(moved), strict=True):
        assert_close(a, b, 1e-5)
    # the first moment of AdamW is a tenth of the gradient, which is clipped
    named = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    from iadjax.backbones.weights import fill_by_table

    gradients = fill_by_table({"params": state.variables["params"]}, prepare(named), TABLE)["params"]
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    ours = new.optimizer[1][0].mu
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(10 * a, b * 0.1 / norm, atol=1e-3 * 0.1 * np.abs(b).max() / norm + 1e-7)


def test_codes_of_images_that_have_a_category_in_common():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 6, 3))
    category, valid = jnp.array([1, 0, 1, 0]), jnp.array([True, True, True, False])
    book = SwitchedQuantizer(3, 4, 3, 0.9)
    before = {
        name: rng.uniform(0.5, 2, shape) for name, shape in (("embedding", (3, 4, 3)), ("size", (3, 4)), ("total", (3, 4, 3)))
    }
    variables = {"codebook": jax.tree.map(jnp.float32, before)}
    _, changed = quickly(lambda v: book.apply(v, jnp.float32(z), category, valid, KEY, mutable="codebook"))(variables)
    after = changed["codebook"]
    for k, rows in enumerate(([1], [0, 2], [])):
        size, total = before["size"][k], before["total"][k]
        if rows:
            used = np.zeros((len(rows), 6, 4))
            code = ((z[rows][:, :, None] - before["embedding"][k]) ** 2).sum(-1).argmin(-1)
            np.put_along_axis(used, code[..., None], 1, axis=2)
            rate = 0.9 ** len(rows)
            size = rate * size + (1 - rate) * used.sum(1).mean(0)
            total = rate * total + (1 - rate) * np.einsum("bnk,bnd->bkd", used, z[rows]).mean(0)
            smoothed = (size + 1e-5) / (size.sum() + 4e-5) * size.sum()
            np.testing.assert_allclose(after["embedding"][k], total / smoothed[:, None], rtol=1e-5)
        else:
            np.testing.assert_array_equal(after["embedding"][k], np.float32(before["embedding"][k]))
        np.testing.assert_allclose(after["size"][k], size, rtol=1e-5)
        np.testing.assert_allclose(after["total"][k], total, rtol=1e-5)


def test_lost_codes_move_to_tokens_of_their_category():
    rng = np.random.default_rng(0)
    z = np.float32(rng.normal(size=(3, 6, 3)) + np.array([0, 40, 80])[:, None, None])
    book = SwitchedQuantizer(3, 16, 3, 0.9, revive=0.5)
    variables = jax.jit(book.init)(KEY, z, jnp.zeros(3, jnp.int32))
    assert not np.any(variables["codebook"]["total"])
    category, valid = jnp.array([2, 0, 1]), jnp.array([True, True, False])
    _, changed = quickly(lambda v: book.apply(v, z, category, valid, KEY, mutable="codebook"))(variables)
    after = changed["codebook"]["embedding"]
    for k, row in ((2, 0), (0, 1)):
        # smoothing adds little to codes that have moved
        near = np.abs(np.asarray(after[k])[:, None] - z[row]).max(-1).min(1)
        assert np.sum(near < 1e-3) > 8
    np.testing.assert_array_equal(after[1], variables["codebook"]["embedding"][1])


def test_next_task_keeps_what_has_the_same_shape():
    detector, _, fresh = built("ab")
    _, _, old = built("abc")
    old = jax.tree.map(lambda leaf: leaf + 1, old)
    kept = detector.warm_start(fresh, old).variables
    assert np.all(kept["params"]["quantize_conv_t"]["kernel"] == 1) and not np.any(kept["params"]["output_proj_kernel"])
    assert kept["codebook"]["quantize_0"]["embedding"].shape[0] == 2
    _, _, one = built("a")
    assert one.variables["params"]["output_proj_bias"].shape[0] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": 9}, "even and a multiple of detector.heads"), ({"transport_levels": (3,)}, "must be in 0 to 2, got \\(3,\\)")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        hvqtrans(BACKBONE, **(SMALL | options))
