"""EfficientNet against PyTorch operations written from the paper, the published sizes, and both sets of names."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from iadjax import backbones
from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from iadjax.backbones.efficientnet import Depthwise
from iadjax.backbones.weights import convert
from tests import torch_parity as parity

efficientnet = importlib.import_module("iadjax.backbones.efficientnet")

LAYERS = ("stem", "stage1", "stage2", "stage3")
# of B0: expansion, channels, blocks, stride, kernel
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5))


def random_tensors(network, layers):
    """A state dict by timm's names, with positive variances."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), layers))
    tensors = {}
    for path, leaf in flatten_dict(shapes).items():
        name, shape = network.weight_name(path), leaf.shape
        value = rng.normal(size=shape[::-1] if len(shape) < 4 else (shape[3], shape[2], *shape[:2])).astype(np.float32)
        if name.endswith("running_var"):
            value = 0.5 + np.abs(value)
        elif value.ndim > 1:
            value /= np.sqrt(value[0].size)
        tensors[name] = value
    return tensors


def torch_features(tensors, image, planned=0):
    """The stem and three stages in plain PyTorch calls; `planned`: the side that paddings are computed for."""
    import torch
    import torch.nn.functional as F

    t = {name: torch.from_numpy(value) for name, value in tensors.items()}

    side_of = {"planned": planned}

    def conv(x, name, stride=1, groups=1):
        weight = t[f"{name}.weight"]
        pads = []
        sides = x.shape[:1:-1]
        if planned and weight.shape[-1] > 1:
            sides = [side_of["planned"]] * 2
            side_of["planned"] = -(-sides[0] // stride)
        for side, kernel in zip(sides, weight.shape[:1:-1], strict=True):
            missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), weight, t.get(f"{name}.bias"), stride, groups=groups)

    def norm(x, name):
        stats = (t[f"{name}.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats, eps=1e-3)

    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    x = F.silu(norm(conv((parity.to_torch(image) - mean) / std, "conv_stem", 2), "bn1"))
    outputs = [x]
    for stage, (expansion, channels, count, stride, _) in enumerate(STAGES):
        for i in range(count):
            p, y, step = f"blocks.{stage}.{i}", x, 1 if i else stride
            norms = iter(("bn1", "bn2", "bn3"))
            if expansion > 1:
                y = F.silu(norm(conv(y, f"{p}.conv_pw"), f"{p}.{next(norms)}"))
            y = F.silu(norm(conv(y, f"{p}.conv_dw", step, y.shape[1]), f"{p}.{next(norms)}"))
            squeezed = F.silu(conv(y.mean((2, 3), keepdim=True), f"{p}.se.conv_reduce"))
            y = y * torch.sigmoid(conv(squeezed, f"{p}.se.conv_expand"))
            y = norm(conv(y, f"{p}.conv_pwl" if expansion > 1 else f"{p}.conv_pw"), f"{p}.{next(norms)}")
            x = x + y if step == 1 and x.shape[1] == channels else y
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("size", [(64, 64), (61, 50)])
def test_features_equal_pytorch(size):
    pytest.importorskip("torch")
    network = backbones.backbone("tf_efficientnet_b0")
    tensors = random_tensors(network, LAYERS)
    image = np.random.default_rng(1).random((2, *size, 3)).astype(np.float32)
    ours = jax.jit(lambda v, x: network.features(v, x, LAYERS))(convert(network, tensors, LAYERS), image)
    for a, b in zip(ours, torch_features(tensors, image), strict=True):
        parity.assert_close(a, parity.from_torch(b), 1e-4)


def test_static_padding_is_that_of_the_planned_size(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(efficientnet.SPECS, "static", (1.0, 1.0, 380, ""))
    dynamic, static = backbones.backbone("tf_efficientnet_b0"), efficientnet.efficientnet("static")
    tensors = random_tensors(dynamic, LAYERS)
    image = np.random.default_rng(1).random((2, 64, 64, 3)).astype(np.float32)
    variables = convert(static, tensors, LAYERS)
    ours = jax.jit(lambda v, x: static.features(v, x, LAYERS))(variables, image)
    for a, b in zip(ours, torch_features(tensors, image, 380), strict=True):
        parity.assert_close(a, parity.from_torch(b), 1e-4)
    # 64 and 380 ask for the same padding in the stem and in the stages of kernel 3, but not in the third stage
    other = jax.jit(lambda v, x: dynamic.features(v, x, LAYERS))(variables, image)
    for a, b in zip(ours[:3], other[:3], strict=True):
        parity.assert_close(a, b, 1e-5)
    assert np.abs(ours[3] - other[3]).max() > 0.1 * np.abs(ours[3]).max()


# parameters as published, less those of the head: 1 x 1 convolution, norm, classifier
@pytest.mark.parametrize(
    ("name", "published", "last", "head"),
    [
        ("tf_efficientnet_b0", 5_288_548, 320, 1280),
        ("tf_efficientnet_b4", 19_341_616, 448, 1792),
        ("efficientnet_b4_static", 19_341_616, 448, 1792),
    ],
)
def test_number_of_parameters_is_the_published_one(name, published, last, head):
    network = backbones.backbone(name)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), ("stage7",)))["params"]
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert count == published - (last * head + 2 * head + head * 1000 + 1000)


def test_uniad_s_four_stages():
    network = backbones.backbone("tf_efficientnet_b4")
    layers = ("stage1", "stage2", "stage3", "stage5")
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), layers))
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = [each.shape[1:] for each in jax.eval_shape(lambda v, x: network.features(v, x, layers), variables, image)]
    assert shapes == [(112, 112, 24), (56, 56, 32), (28, 28, 56), (14, 14, 160)]


def test_names_of_the_pytorch_port_are_read():
    network = backbones.backbone("tf_efficientnet_b0")
    tensors = random_tensors(network, ("stage2",))
    blocks = {"0.0": 0, "1.0": 1, "1.1": 2}
    parts = {"conv_dw": "_depthwise_conv", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}

    def theirs(name):
        if not name.startswith("blocks"):
            return name.replace("conv_stem", "_conv_stem").replace("bn1", "_bn0")
        _, stage, i, *rest, leaf = name.split(".")
        part = ".".join(rest)
        if part.startswith("bn"):
            part = f"_bn{int(part[2]) - (stage != '0')}"
        elif part.startswith("conv_pw"):
            part = "_project_conv" if stage == "0" or part == "conv_pwl" else "_expand_conv"
        return f"_blocks.{blocks[f'{stage}.{i}']}.{parts.get(part, part)}.{leaf}"

    renamed = {theirs(name): value for name, value in tensors.items()}
    assert len(renamed) == len(tensors) and "_blocks.1._bn0.running_var" in renamed
    both = [convert(network, each, ("stage2",)) for each in (tensors, renamed)]
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, both), strict=True))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_both_forms_of_the_depthwise_convolution_agree(kernel, stride):
    x = jax.random.normal(jax.random.key(0), (2, 13, 16, 6))
    layer = Depthwise(kernel, stride)
    variables = layer.init(jax.random.key(1), x)
    truth = jax.lax.conv_general_dilated(
        x,
        variables["params"]["kernel"],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    np.testing.assert_allclose(layer.apply(variables, x), truth, atol=1e-5)


def test_the_symmetric_form_pads_both_sides_the_same():
    side, found = efficientnet.SPECS["efficientnet_b5_symmetric"][2], []
    for kernel, stride in ((3, 2), *((each[4], each[3]) for each in efficientnet._STAGES)):
        found += [(pads, kernel // 2) for pads in efficientnet._pads((side,), kernel, stride)]
        side = -(-side // stride)
    assert all(pads == (half, half) for pads, half in found)


def test_names_of_torchvision_are_read():
    network = backbones.backbone("efficientnet_b5_symmetric")
    tensors = random_tensors(network, ("stage2",))
    # the parts of torchvision's lists, the first stage without an expansion
    first = {
        "conv_dw": "0.0",
        "bn1": "0.1",
        "se.conv_reduce": "1.fc1",
        "se.conv_expand": "1.fc2",
        "conv_pw": "2.0",
        "bn2": "2.1",
    }
    others = {
        "conv_pw": "0.0",
        "bn1": "0.1",
        "conv_dw": "1.0",
        "bn2": "1.1",
        "se.conv_reduce": "2.fc1",
        "se.conv_expand": "2.fc2",
    }
    others |= {"conv_pwl": "3.0", "bn3": "3.1"}

    def theirs(name):
        if not name.startswith("blocks"):
            return name.replace("conv_stem", "features.0.0").replace("bn1", "features.0.1")
        _, stage, i, *rest, leaf = name.split(".")
        return f"features.{int(stage) + 1}.{i}.block.{(others if int(stage) else first)['.'.join(rest)]}.{leaf}"

    read = network.rename({theirs(name): tensor for name, tensor in tensors.items()})
    assert set(read) == set(tensors) and all(read[name] is tensor for name, tensor in tensors.items())
