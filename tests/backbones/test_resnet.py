"""Backbones against PyTorch: the same weights, the same image, every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from iadjax import backbones
from iadjax.errors import UserError
from tests import torch_parity as parity

KEY = jax.random.key(0)


def state_dict(backbone, layers, seed=0):
    """Random weights under PyTorch's names, with statistics that keep activations near one."""
    rng = np.random.default_rng(seed)
    found = {}
    shapes = jax.eval_shape(lambda key: backbone.init(key, layers), KEY)
    for path, leaf in flatten_dict(shapes).items():
        shape = leaf.shape
        if path[-1] == "kernel":
            fan_in = np.prod(shape[:-1])
            value = rng.standard_normal((shape[3], shape[2], *shape[:2])) * np.sqrt(2 / fan_in)
        elif path[-1] in ("scale", "var"):
            value = rng.uniform(0.5, 1.0, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[backbone.weight_name(path)] = value.astype(np.float32)
    return found


def close(ours, theirs):
    """Within 1e-4 of the layer's largest value."""
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


def torch_resnet(torch, weights, image, bottleneck, blocks):
    """A plain PyTorch forward pass by the paper, with torchvision's names; returns every layer, NHWC."""
    functional = torch.nn.functional
    w = {key: torch.tensor(value) for key, value in weights.items()}
    out = {}

    def norm(x, name):
        stats = [w[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *stats, training=False, eps=1e-5)

    def conv(x, name, stride, pad):
        return functional.conv2d(x, w[f"{name}.weight"], stride=stride, padding=pad)

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (torch.tensor(image).permute(0, 3, 1, 2) - mean) / std
    x = out["relu"] = torch.relu(norm(conv(x, "conv1", 2, 3), "bn1"))
    x = out["maxpool"] = functional.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            plan = [(1, 0), (stride, 1), (1, 0)] if bottleneck else [(stride, 1), (1, 1)]
            y = x
            for j, (step, pad) in enumerate(plan, start=1):
                y = norm(conv(y, f"{name}.conv{j}", step, pad), f"{name}.bn{j}")
                y = torch.relu(y) if j < len(plan) else y
            if f"{name}.downsample.0.weight" in w:
                x = norm(conv(x, f"{name}.downsample.0", stride, 0), f"{name}.downsample.1")
            x = out[name] = torch.relu(x + y)
        out[f"layer{stage}"] = x
    return {key: value.permute(0, 2, 3, 1).numpy() for key, value in out.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet34", "resnet50", "wide_resnet50_2"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("resnet101", "resnet152", "wide_resnet101_2")),
    ],
)
def test_every_layer_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    backbone = backbones.backbone(name)
    bottleneck, blocks, _ = backbones.SPECS[name]
    weights = state_dict(backbone, backbone.layers)
    image = np.random.default_rng(1).random((1, 70, 62, 3), np.float32)
    variables = backbones.convert(backbone, weights, backbone.layers)
    ours = jax.jit(lambda v, x: parity.features(backbone, v, x, backbone.layers))(variables, image)
    theirs = torch_resnet(torch, weights, image, bottleneck, blocks)
    for layer, features in zip(backbone.layers, ours, strict=True):
        close(features, theirs[layer])


def test_stored_features_without_torch():
    # made by the PyTorch forward pass above: mean and standard deviation of each layer
    backbone = backbones.backbone("resnet18")
    image = np.random.default_rng(1).random((1, 70, 62, 3), np.float32)
    variables = backbones.convert(backbone, state_dict(backbone, backbone.layers), backbone.layers)
    ours = parity.features(backbone, variables, image, ("relu", "layer1", "layer2", "layer3", "layer4"))
    np.testing.assert_allclose([[x.mean(), x.std()] for x in ours], STORED, rtol=1e-4)


STORED = [
    [0.6308520436286926, 0.9410665035247803],
    [3.3889665603637695, 3.3575682640075684],
    [4.103988170623779, 5.150489330291748],
    [5.753962516784668, 7.184578895568848],
    [6.274278163909912, 8.184649467468262],
]


def test_real_weights_equal_pytorch(shared):
    torch = pytest.importorskip("torch")
    path = shared / "weights/resnet18_imagenet1k_v1_layer123.safetensors"
    backbone = backbones.backbone("resnet18")
    layers = [layer for layer in backbone.layers if not layer.startswith("layer4")]
    image = np.random.default_rng(2).random((1, 96, 96, 3), np.float32)
    variables = backbones.load_weights(backbone, str(path), layers, KEY)
    theirs = torch_resnet(torch, load_file(path), image, False, (2, 2, 2))
    for layer, features in zip(layers, parity.features(backbone, variables, image, layers), strict=True):
        close(features, theirs[layer])


@pytest.mark.parametrize("size", [(64, 64), (67, 70)])
def test_squeezenet_equals_pytorch(size):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    backbone = backbones.backbone("squeezenet1_1")
    weights = state_dict(backbone, backbone.layers)
    image = np.random.default_rng(3).random((1, *size, 3), np.float32)
    ours = parity.features(backbone, backbones.convert(backbone, weights, backbone.layers), image, backbone.layers)
    w = {key: torch.tensor(value) for key, value in weights.items()}

    def conv(x, name, pad=0, stride=1):
        return functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, pad)

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (torch.tensor(image).permute(0, 3, 1, 2) - mean) / std
    for i, features in enumerate(ours):
        name = f"features.{i}"
        if i == 0:
            x = conv(x, name, stride=2)
        elif i == 1:
            x = torch.relu(x)
        elif i in (2, 5, 8):
            x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        else:
            x = torch.relu(conv(x, f"{name}.squeeze"))
            x = torch.relu(torch.cat([conv(x, f"{name}.expand1x1"), conv(x, f"{name}.expand3x3", 1)], 1))
        close(features, x.permute(0, 2, 3, 1).numpy())


def test_alexnet_equals_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    backbone = backbones.backbone("alexnet")
    weights = state_dict(backbone, backbone.layers)
    image = np.random.default_rng(3).random((1, 67, 70, 3), np.float32)
    ours = parity.features(backbone, backbones.convert(backbone, weights, backbone.layers), image, backbone.layers)
    w = {key: torch.tensor(value) for key, value in weights.items()}
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (torch.tensor(image).permute(0, 3, 1, 2) - mean) / std
    for i, features in enumerate(ours):
        name, stride = f"features.{i}", 4 if i == 0 else 1
        if i in (2, 5, 12):
            x = functional.max_pool2d(x, 3, 2)
        elif f"{name}.weight" in w:
            x = functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, 1 if i > 3 else 2)
        else:
            x = torch.relu(x)
        close(features, x.permute(0, 2, 3, 1).numpy())


def test_nothing_above_the_last_layer_is_computed():
    backbone = backbones.backbone("resnet18")
    shallow = flatten_dict(backbone.init(KEY, ["layer1", "layer2.0"]))
    names = {path[1] for path in shallow}
    assert names == {"conv1", "bn1", "layer1_0", "layer1_1", "layer2_0"}


@pytest.fixture
def saved(tmp_path):
    backbone = backbones.backbone("resnet18")
    weights = state_dict(backbone, ["layer2"]) | {"fc.weight": np.zeros((10, 512), np.float32)}
    weights["bn1.num_batches_tracked"] = np.zeros((), np.int64)

    def save(**changes):
        kept = {key: value for key, value in {**weights, **changes}.items() if value is not None}
        save_file(kept, tmp_path / "weights.safetensors")
        return lambda: backbones.load_weights(backbone, str(tmp_path / "weights.safetensors"), ["layer2"], KEY)

    return save


def test_a_file_loads_and_its_mistakes_are_named(saved, tmp_path):
    variables = saved()()
    assert backbones.content_hash(variables) == backbones.content_hash(saved()())
    with pytest.raises(UserError, match="missing layer1.0.conv1.weight"):
        saved(**{"layer1.0.conv1.weight": None})()
    with pytest.raises(UserError, match="unknown layer9.weight"):
        saved(**{"layer9.weight": np.zeros(3, np.float32)})()
    with pytest.raises(UserError, match=r"layer1.0.bn1.bias has shape \(3,\), which does not fit \(64,\)"):
        saved(**{"layer1.0.bn1.bias": np.zeros(3, np.float32)})()
    (tmp_path / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        backbones.load_weights(backbones.backbone("resnet18"), str(tmp_path / "weights.safetensors"), ["layer2"], KEY)


def test_weights_of_another_network(tmp_path):
    other = backbones.backbone("squeezenet1_1")
    save_file(state_dict(other, other.layers), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not hold the weights of resnet18: missing"):
        backbones.load_weights(backbones.backbone("resnet18"), str(tmp_path / "other.safetensors"), ["layer1"], KEY)


def test_offline_says_which_file_to_fetch(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(repo, file):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        UserError, match="huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors .*--config.backbone.weights"
    ):
        backbones.load_weights(backbones.backbone("resnet18"), "", ["layer1"], KEY)
    with pytest.raises(UserError, match="no weights file 'nowhere.safetensors'"):
        backbones.load_weights(backbones.backbone("resnet18"), "nowhere.safetensors", ["layer1"], KEY)
    # a tag that is cached is a file like any other
    backbone = backbones.backbone("resnet18")
    save_file(state_dict(backbone, ["relu"]), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file: str(tmp_path / file))
    assert set(backbones.load_weights(backbone, "timm/resnet18.tv_in1k", ["relu"], KEY)["params"]) == {"conv1", "bn1"}


def test_unknown_names():
    with pytest.raises(UserError, match="no backbone 'resnet19'; did you mean 'resnet18'"):
        backbones.backbone("resnet19")
    with pytest.raises(UserError, match="resnet18 has no layer 'layer5'.*layer1.0"):
        backbones.backbone("resnet18").init(KEY, ["layer5"])


def test_filter_bank_features():
    backbone = backbones.backbone("filter_bank")
    image = jnp.asarray(np.random.default_rng(0).random((2, 64, 64, 3), np.float32))
    features = parity.features(backbone, {}, image, ("layer1", "layer2", "layer3"))
    depth = features[0].shape[-1]
    assert [x.shape for x in features] == [(2, 16, 16, depth), (2, 8, 8, depth), (2, 4, 4, depth)]
    # stripes answer in the channel of their own orientation: vertical ones in the first, horizontal ones in the fourth
    stripes = np.tile(0.5 + 0.4 * np.sin(2 * np.pi * np.arange(64) / 4), (64, 1)).astype(np.float32)
    both = np.stack([stripes, stripes.T])[..., None].repeat(3, -1)
    (answer,) = parity.features(backbone, {}, jnp.asarray(both), ("layer1",))
    assert answer[0, 8, 8, :6].argmax() == 0 and answer[1, 8, 8, :6].argmax() == 3


def test_train_mode_normalises_by_the_valid_rows_and_moves_the_running_statistics():
    torch = pytest.importorskip("torch")
    backbone = backbones.backbone("resnet18")
    layers = ("relu", "layer1.0")
    weights = state_dict(backbone, layers)
    variables = backbones.convert(backbone, weights, layers)
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    valid = np.array([True, True, False])
    run = jax.jit(lambda v, x, valid: backbone.features(v, x, layers, train=True, valid=valid))
    (stem, _), changed = run(variables, image, valid)
    functional = torch.nn.functional
    normal = (image[:2] - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = functional.conv2d(parity.to_torch(normal), torch.tensor(weights["conv1.weight"]), stride=2, padding=3)
    mean, var = (torch.tensor(weights[f"bn1.running_{each}"]) for each in ("mean", "var"))
    scale, bias = (torch.tensor(weights[f"bn1.{each}"]) for each in ("weight", "bias"))
    truth = torch.relu(functional.batch_norm(x, mean, var, scale, bias, training=True, momentum=0.1))
    close(stem[:2], parity.from_torch(truth))
    close(changed["bn1"]["mean"], mean.numpy())
    # PyTorch's running variance divides by one less
    biased = 0.9 * weights["bn1.running_var"] + 0.1 * x.var((0, 2, 3), correction=0).numpy()
    close(changed["bn1"]["var"], biased)
    assert jax.tree.structure(changed) == jax.tree.structure(variables["batch_stats"])
    same = run(variables, np.concatenate([image[:2], image[:1]]), valid)[1]
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_train_mode_of_networks_without_batch_norm_and_of_those_that_refuse():
    image = np.zeros((1, 32, 32, 3), np.float32)
    backbone = backbones.backbone("filter_bank")
    (level,), changed = backbone.features({}, image, ("layer1",), train=True)
    assert changed == {} and level.shape == (1, 8, 8, 18)
    with pytest.raises(UserError, match="tf_efficientnet_b0 cannot be trained"):
        backbones.backbone("tf_efficientnet_b0").features({}, image, ("stem",), train=True)
