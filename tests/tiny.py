"""Networks that compile in a fraction of a second, for tests in which any network will do."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.backbone import Backbone, check_layers, plain_features
from iadjax.backbones.clip_text import TEXT_SPECS, TextSpec
from iadjax.backbones.pdn import pdn
from iadjax.backbones.resnet import SPECS as RESNETS
from iadjax.backbones.vit import SPECS as VITS
from iadjax.backbones.vit import Spec
from iadjax.cpu.draws import draw_together
from iadjax.detectors.autoencoder import nsa
from iadjax.detectors.diffusion import anoddpm, ddad, diffusionad, score_based, transfusion
from iadjax.detectors.families import reverse
from iadjax.detectors.gan import scadn
from iadjax.detectors.teacher_student import rdpp
from iadjax.nn import adm, residual, restoration, transparency, unet
from iadjax.nn import pdn as networks
from iadjax.nn.adm import AdmUNet
from iadjax.nn.layers import Conv, ConvTranspose2x2, Dropout, linear
from iadjax.nn.norms import BatchNorm, group_norm
from iadjax.nn.pdn import SPECS as PDNS
from iadjax.nn.transparency import TransparencyUNet

__all__ = ["bank", "pyramid", "pyramid_variables", "tiny_networks"]


class Pyramid(nn.Module):
    """Three convolutions of strides 4, 2, 2, to 24 channels each."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        levels = []
        for i, stride in enumerate((4, 2, 2), start=1):
            # without their sign two features in three would be zero almost everywhere
            x = jnp.abs(Conv(24, stride, stride, padding=0, name=f"conv{i}")(x)) + (0.1 * i)
            levels.append(x)
        return tuple(levels)


def bank() -> Backbone:
    """`layer1`, `layer2`, `layer3` at strides 4, 8, 16 of 18 channels, without variables, as `filter_bank` has them."""
    rng = np.random.default_rng(0)
    kernels = [rng.standard_normal((stride * stride * depth, 18)) for stride, depth in ((4, 3), (2, 18), (2, 18))]

    def features(variables, image, layers):
        levels, x = {}, image
        for layer, kernel, stride in zip(backbone.layers, kernels, (4, 2, 2), strict=True):
            number, height, width, depth = x.shape
            grid = height // stride, width // stride
            x = x[:, : grid[0] * stride, : grid[1] * stride].reshape(number, grid[0], stride, grid[1], stride, depth)
            x = x.transpose(0, 1, 3, 2, 4, 5).reshape(number, *grid, len(kernel))
            x = levels[layer] = jnp.abs(x @ (kernel / math.sqrt(len(kernel))).astype(x.dtype))
        return tuple(levels[layer] for layer in check_layers(backbone, layers))

    backbone = Backbone(
        "tiny_bank",
        ("layer1", "layer2", "layer3"),
        lambda key, layers: {},
        plain_features(features),
        lambda path: ".".join(path),
    )
    return backbone


def pyramid() -> Backbone:
    """`layer1`, `layer2`, `layer3` at strides 4, 8, 16."""

    def init(key, layers):
        check_layers(backbone, layers)
        return Pyramid().init(key, jnp.zeros((1, 16, 16, 3)))

    def features(variables, image, layers):
        levels = dict(zip(backbone.layers, Pyramid().apply(variables, image), strict=True))
        return tuple(levels[layer] for layer in check_layers(backbone, layers))

    backbone = Backbone("tiny", ("layer1", "layer2", "layer3"), init, plain_features(features), lambda path: ".".join(path[1:]))
    return backbone


def pyramid_variables() -> dict[str, Any]:
    """Random variables of `pyramid`."""
    network = pyramid()
    return network.init(jax.random.key(0), network.layers)


class OneConvolution(adm.ResBlock):
    """`nn.adm.ResBlock` without its second norm and convolution."""

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool) -> jax.Array:
        assert self.resample == 1
        y = Conv(self.features, name="in_layers_2")(nn.silu(group_norm(x, "in_layers_0")))
        y += linear(self.features, code.shape[-1], "embed_layers_1")(nn.silu(code))[:, None, None]
        y = Dropout(self.dropout, deterministic=not train)(y)
        return y + (x if x.shape[-1] == self.features else Conv(self.features, 1, name="skip_connection")(x))


class OneOfTwo(transparency.ResidualBlock):
    """`nn.transparency.ResidualBlock` without its second norm and convolution."""

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array) -> jax.Array:
        y = Conv(self.features, name="conv1")(nn.silu(group_norm(x, "norm1")))
        y += linear(self.features, code.shape[-1], "time_emb")(code)[:, None, None]
        return y + (x if x.shape[-1] == self.features else Conv(self.features, 1, name="shortcut")(x))


class OneStride(residual.Block):
    """`nn.residual.Block` with its strided convolution alone."""

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        assert self.shortcut
        if self.up:
            y = ConvTranspose2x2(self.features, name="conv1")(x)
        else:
            y = residual.conv(self.features, 3, self.stride, "conv1")(x)
        return nn.relu(BatchNorm(name="bn1")(y, valid))


_EncoderDecoder = nsa.EncoderDecoder


def _with_fewer_blocks(width, multipliers, blocks, *rest):
    return AdmUNet(width, multipliers, blocks - 1, *rest)


def _with_fewer_units(width, multipliers, attended, blocks):
    return TransparencyUNet(width, multipliers, attended, blocks - 1)


# networks of which the tables of their layers are shorter, or blocks of two convolutions have one
SMALLER = (
    (unet, "_double", lambda x, valid, first, second, name: unet._unit(x, valid, second, name, 0)),
    (unet, "_instance_double", lambda x, features, name, init: unet.instance_unit(x, features, name, init)),
    (unet, "_RECONSTRUCTIVE", (1, 2)),
    (unet, "_RECONSTRUCTIVE_UP", ((1, 1),)),
    (unet, "_DISCRIMINATIVE", (1, 2)),
    (unet, "_DISCRIMINATIVE_UP", (("4", 1),)),
    (networks, "_ENCODED", (8, 8, 8)),
    (networks, "_DECODED", ((8, 0), (4, 1))),
    (scadn, "_HALVINGS", 1),
    (rdpp, "_DIVISORS", (2, 1)),
    (nsa, "EncoderDecoder", lambda width, blocks, block: _EncoderDecoder(width, blocks[:2], block)),
    (adm, "ResBlock", OneConvolution),
    (transparency, "ResidualBlock", OneOfTwo),
    (transfusion, "TransparencyUNet", _with_fewer_units),
    (reverse, "Block", OneStride),
    (
        reverse,
        "SplitBlock",
        lambda features, width, stride, first, name: OneStride(features, 0, stride, False, first, name=name),
    ),
    (restoration, "_DOUBLED", ((1, 2),)),
    *((each, "AdmUNet", _with_fewer_blocks) for each in (anoddpm, ddad, diffusionad, score_based)),
)


@contextlib.contextmanager
def tiny_networks() -> Iterator[None]:
    """Inside, there are the networks `tiny` (`pyramid`), `pdn_tiny`, `clip_tiny` and `clip_tiny_text`, and other networks are
    `SMALLER`. Random weights are drawn once."""
    real, load_weights, drawn = backbones.backbone, backbones.load_weights, {}
    more = {"tiny": pyramid, "pdn_tiny": lambda: pdn("pdn_tiny")}

    def load_once(network, weights, layers, key):
        if weights != "random":
            return load_weights(network, weights, layers, key)
        which = network.name, tuple(layers), jax.random.key_data(key).tobytes()
        if which not in drawn:
            # one program in place of hundreds
            drawn[which] = jax.jit(draw_together(lambda key: network.init(key, tuple(layers))))(key)
        return drawn[which]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "load_weights", load_once)
        patch.setattr(backbones, "backbone", lambda name: more[name]() if name in more else real(name))
        patch.setitem(PDNS, "pdn_tiny", ((8, 4, 3, True), (8, 4, 3, True), (8, 3, 1, False), (0, 4, 0, False)))
        images = Spec(16, 32, 2, 2, 4, 0, False, False, "", "bilinear", eps=1e-5, embedding=16, value_from=2, pixels="clip")
        patch.setitem(VITS, "clip_tiny", images)
        patch.setitem(TEXT_SPECS, "clip_tiny_text", TextSpec(16, 2, 2, 16, "gelu", ""))
        patch.setitem(RESNETS, "tiny", (False, (1, 1, 1, 1), 64))
        for module, name, value in SMALLER:
            patch.setattr(module, name, value)
        yield
