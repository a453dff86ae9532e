"""Vision transformers against a PyTorch module written from the papers' descriptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.positions import position_matrix
from iadjax.backbones.vit import SPECS, Spec, vit
from iadjax.errors import UserError
from tests import torch_parity as parity

PLAIN = Spec(4, 24, 3, 2, 5, 0, False, True, "")
REGISTERS = PLAIN._replace(registers=2)
DISTILLED = PLAIN._replace(distilled=True, layer_scale=False)


def torch_vit(spec):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(spec.dim))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(spec.dim, eps=1e-6), nn.LayerNorm(spec.dim, eps=1e-6)
            self.attn = nn.ModuleDict({"qkv": nn.Linear(spec.dim, 3 * spec.dim), "proj": nn.Linear(spec.dim, spec.dim)})
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(spec.dim, 4 * spec.dim), "fc2": nn.Linear(4 * spec.dim, spec.dim)})
            if spec.layer_scale:
                self.ls1, self.ls2 = Scale(), Scale()

        def forward(self, x):
            batch, tokens, dim = x.shape
            q, k, v = self.attn["qkv"](self.norm1(x)).reshape(batch, tokens, 3, spec.heads, -1).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            y = self.attn["proj"](y)
            x = x + (y * self.ls1.gamma if spec.layer_scale else y)
            y = self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))
            return x + (y * self.ls2.gamma if spec.layer_scale else y)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
            if spec.distilled:
                self.dist_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
            if spec.registers:
                self.register_tokens = nn.Parameter(torch.zeros(1, spec.registers, spec.dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + spec.distilled + spec.grid**2, spec.dim))
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, spec.dim, spec.patch, spec.patch)})
            self.blocks = nn.ModuleList([Block() for _ in range(spec.depth)])
            self.norm = nn.LayerNorm(spec.dim, eps=1e-6)

        def forward(self, image):
            x = self.patch_embed["proj"](image)
            height, width = x.shape[2:]
            special = 1 + spec.distilled
            table = self.pos_embed[:, special:].reshape(1, spec.grid, spec.grid, -1).permute(0, 3, 1, 2)
            if (height, width) != (spec.grid, spec.grid):
                if spec.registers:
                    table = nn.functional.interpolate(table, (height, width), mode="bicubic", antialias=True)
                else:
                    scale = ((height + 0.1) / spec.grid, (width + 0.1) / spec.grid)
                    table = nn.functional.interpolate(table, scale_factor=scale, mode="bicubic")
            x = (x + table).flatten(2).transpose(1, 2)
            tokens = [self.cls_token] + ([self.dist_token] if spec.distilled else [])
            tokens = (torch.cat(tokens, 1) + self.pos_embed[:, :special]).expand(len(x), -1, -1)
            if spec.registers:
                tokens = torch.cat([tokens, self.register_tokens.expand(len(x), -1, -1)], 1)
            number = tokens.shape[1]
            x = torch.cat([tokens, x], 1)
            outputs = []
            for block in self.blocks:
                x = block(x)
                outputs.append(x[:, number:].reshape(len(x), height, width, -1))
            outputs.append(self.norm(x)[:, number:].reshape(len(x), height, width, -1))
            return outputs

    whole = Whole()
    parity.randomize(whole)
    return whole


def hugging_face(tensors):
    """The same tensors by the names of `facebook/dinov2-*`, written out here independently."""
    renamed = {}
    for name, tensor in tensors.items():
        if name == "register_tokens":
            renamed["embeddings.register_tokens"] = tensor
        elif name == "cls_token":
            renamed["embeddings.cls_token"] = tensor
        elif name == "pos_embed":
            renamed["embeddings.position_embeddings"] = tensor
        elif name.startswith("patch_embed"):
            renamed[f"embeddings.patch_embeddings.projection.{name.split('.')[-1]}"] = tensor
        elif name.startswith("norm."):
            renamed[name.replace("norm.", "layernorm.")] = tensor
        else:
            _, number, *rest = name.split(".")
            start, rest = f"encoder.layer.{number}.", ".".join(rest)
            if rest.startswith("attn.qkv"):
                for part, piece in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                    renamed[f"{start}attention.attention.{part}.{rest.split('.')[-1]}"] = piece
            else:
                rest = rest.replace("attn.proj", "attention.output.dense")
                rest = rest.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
                renamed[start + rest] = tensor
    return renamed


@pytest.fixture
def small(monkeypatch):
    for name, spec in (("plain", PLAIN), ("registers", REGISTERS), ("distilled", DISTILLED)):
        monkeypatch.setitem(SPECS, name, spec)


@pytest.mark.parametrize(
    "name,size", [("plain", (20, 20)), ("plain", (12, 28)), ("registers", (12, 28)), ("distilled", (20, 20))]
)
def test_tokens_equal_pytorch(small, name, size):
    network = torch_vit(SPECS[name])
    image = np.random.default_rng(0).random((2, *size, 3), np.float32)
    normal = (image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    theirs = network(parity.to_torch(normal))
    backbone = vit(name)
    layers = ("block1", "block1.norm", "block3", "norm")
    tensors = {**parity.tensors(network), "mask_token": np.zeros((1, 24)), "head.weight": np.zeros((1, 24))}
    variables = backbones.convert(backbone, tensors, layers)
    for ours, index in zip(backbone.features(variables, image, layers), (0, None, 2, 3), strict=True):
        truth = network.norm(theirs[0]) if index is None else theirs[index]
        parity.assert_close(ours, truth.detach(), 1e-4)
    if name != "distilled":
        other = backbones.convert(backbone, hugging_face(parity.tensors(network)), layers)
        for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True):
            assert np.array_equal(a, b)


def test_positions_equal_pytorch_at_dinov2_sizes():
    torch = pytest.importorskip("torch")
    table = torch.randn(1, 3, 37, 37, generator=torch.Generator().manual_seed(0))
    for target in (16, 32, 40):
        options = {"scale_factor": ((target + 0.1) / 37,) * 2, "mode": "bicubic"}
        for rule, theirs in (
            ("offset", torch.nn.functional.interpolate(table, **options)),
            ("antialias", torch.nn.functional.interpolate(table, (target, target), mode="bicubic", antialias=True)),
            ("exact", torch.nn.functional.interpolate(table, (target, target), mode="bicubic")),
            ("bilinear", torch.nn.functional.interpolate(table, (target, target), mode="bilinear")),
        ):
            matrix = position_matrix(37, target, rule)
            ours = np.einsum("ia,jb,cab->cij", matrix, matrix, table[0].numpy())
            np.testing.assert_allclose(ours, theirs[0].numpy(), atol=2e-4)


def test_only_the_blocks_asked_for_are_computed(small):
    backbone = vit("plain")
    variables = backbone.init(jax.random.key(0), ("block2",))
    assert {name for name in variables["params"] if name.startswith("blocks")} == {"blocks_0", "blocks_1"}
    assert "norm" not in variables["params"]


def test_sizes_of_the_published_networks():
    for name, (tokens, dim, count) in {
        "dinov2_vits14": (1370, 384, 22056576 - 384),
        "dinov2_vitb14": (1370, 768, 86580480 - 768),
        # 87.63 million with both heads
        "deit_base_distilled_patch16_384": (578, 768, 86092032),
    }.items():
        backbone = backbones.backbone(name)
        shapes = jax.eval_shape(lambda key, b=backbone: b.init(key, ("norm",)), jax.random.key(0))
        assert shapes["params"]["pos_embed"].shape == (1, tokens, dim)
        # as published, less the mask token
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    backbone = backbones.backbone("dinov2_vits14_reg")
    image = jax.ShapeDtypeStruct((1, 448, 392, 3), jnp.float32)
    variables = jax.eval_shape(lambda key: backbone.init(key, ("norm",)), jax.random.key(0))
    assert jax.eval_shape(lambda v, x: backbone.features(v, x, ("norm",)), variables, image)[0].shape == (1, 32, 28, 384)


def test_a_size_that_the_patch_does_not_divide_is_refused(small):
    backbone = vit("plain")
    variables = backbone.init(jax.random.key(0), ("block1",))
    with pytest.raises(UserError, match="multiples of 4, got 18x20; set data.resize or data.crop to 16x20"):
        backbone.features(variables, jnp.zeros((1, 18, 20, 3)), ("block1",))
    assert SPECS["dinov2_vitl14_reg"].hub == "timm/vit_large_patch14_reg4_dinov2.lvd142m"
