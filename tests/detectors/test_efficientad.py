"""EfficientAD against PyTorch modules written from the paper's tables, and its losses and quantiles in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.pdn import published_names
from iadjax.backbones.weights import fill
from iadjax.detector import Batch, DataSpec
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student import efficientad as module
from iadjax.detectors.teacher_student.efficientad import Autoencoder, efficientad
from iadjax.errors import UserError
from iadjax.nn.pdn import PDN
from tests import torch_parity as parity

# the places of the layers in a plain sequence, written out independently of the code
SMALL = {"0": "conv1", "3": "conv2", "6": "conv3", "8": "conv4"}
MEDIUM = {"0": "conv1", "3": "conv2", "6": "conv3", "8": "conv4", "10": "conv5", "12": "conv6"}


def torch_pdn(name, features, padding):
    nn = pytest.importorskip("torch").nn
    pad = 1 if padding else 0
    head = [(3, 128, 256), (256,)] if name == "pdn_small" else [(3, 256, 512), (512,)]
    a, b, c = head[0]
    start = [nn.Conv2d(a, b, 4, padding=3 * pad), nn.ReLU(), nn.AvgPool2d(2, 2, pad)]
    start += [nn.Conv2d(b, c, 4, padding=3 * pad), nn.ReLU(), nn.AvgPool2d(2, 2, pad)]
    if name == "pdn_small":
        end = [nn.Conv2d(c, c, 3, padding=pad), nn.ReLU(), nn.Conv2d(c, features, 4)]
    else:
        end = [nn.Conv2d(c, c, 1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=pad), nn.ReLU()]
        end += [nn.Conv2d(c, features, 4), nn.ReLU(), nn.Conv2d(features, features, 1)]
    network = nn.Sequential(*start, *end)
    parity.randomize(network)
    return network


@pytest.mark.parametrize("name,padding", [("pdn_small", False), ("pdn_small", True), ("pdn_medium", False)])
def test_pdn_equals_pytorch(name, padding):
    network = torch_pdn(name, 12, padding)
    x = np.random.default_rng(0).normal(size=(2, 41, 48, 3)).astype(np.float32)
    ours = PDN(name, 12, padding)
    named = published_names(name, parity.tensors(network))
    variables = fill(jax.jit(ours.init)(jax.random.key(0), x), named)
    theirs = parity.from_torch(network(parity.to_torch(x)))
    parity.assert_close(jax.jit(ours.apply)(variables, x), theirs, 1e-4)
    parity.assert_close(ours.apply(variables, x, (4, 9)), theirs[..., 4:9], 1e-4)


def torch_autoencoder():
    nn = pytest.importorskip("torch").nn
    layers = []
    for a, b in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64)):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
    layers.append(nn.Conv2d(64, 64, 8))
    for size in (3, 8, 15, 32, 63, 127):
        layers += [nn.Upsample(size=size, mode="bilinear"), nn.Conv2d(64, 64, 4, padding=2), nn.ReLU()]
    layers += [nn.Upsample(size=56, mode="bilinear"), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv2d(64, 384, 3, padding=1))
    parity.randomize(network)
    return network


def built(name="pdn_small", size=128, validation=3, **options):
    backbone = backbones.backbone(name)
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = efficientad(backbone, **{"steps": 10, **options})
    spec = DataSpec(4, (size, size, 3), ("a",), validation, 2)
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


def test_autoencoder_equals_pytorch_and_both_sets_of_names_load():
    torch = pytest.importorskip("torch")
    student, autoencoder = torch_pdn("pdn_small", 768, False), torch_autoencoder()
    _, _, state = built(size=256)
    tensors = {f"student.{name}": tensor for name, tensor in parity.tensors(student).items()}
    tensors |= {f"autoencoder.{name}": tensor for name, tensor in parity.tensors(autoencoder).items()}
    loaded = from_torch("efficientad", tensors, state)
    params = loaded.trained.variables["params"]
    x = np.random.default_rng(0).normal(size=(2, 256, 256, 3)).astype(np.float32)
    output = autoencoder(parity.to_torch(x))
    ours = Autoencoder()
    parity.assert_close(ours.apply({"params": params["autoencoder"]}, x), parity.from_torch(output), 1e-4)
    value = (output**2).mean()
    value.backward()

    def loss(tree):
        return jnp.mean(ours.apply({"params": tree}, x) ** 2)

    mine, gradients = jax.jit(jax.value_and_grad(loss))(params["autoencoder"])
    np.testing.assert_allclose(mine, value.item(), rtol=1e-4)
    torch_gradients = {f"autoencoder.{name}": p.grad.numpy() for name, p in autoencoder.named_parameters()}
    expected = from_torch("efficientad", {**tensors, **torch_gradients}, state).trained.variables["params"]["autoencoder"]
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max()

    convolutions = [i for i, layer in enumerate(autoencoder) if isinstance(layer, torch.nn.Conv2d)]
    names = [f"ae.encoder.enconv{i}" for i in range(1, 7)] + [f"ae.decoder.deconv{i}" for i in range(1, 9)]
    other = {
        f"model.student.{SMALL[name.split('.')[0]]}.{name.split('.')[1]}": t for name, t in parity.tensors(student).items()
    }
    for place, name in zip(convolutions, names, strict=True):
        for kind in ("weight", "bias"):
            other[f"model.{name}.{kind}"] = tensors[f"autoencoder.{place}.{kind}"]
    other["model.teacher.conv1.weight"] = np.zeros(1)
    for kind in ("mean", "std"):
        other[f"model.mean_std.{kind}"] = np.full((1, 384, 1, 1), 2.0, np.float32)
    for i, kind in enumerate(("qa_st", "qb_st", "qa_ae", "qb_ae")):
        other[f"model.quantiles.{kind}"] = np.float32(i)
    again = from_torch("efficientad", other, state)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again.trained.variables["params"]), strict=True):
        assert np.array_equal(a, b)
    assert np.all(again.mean == 2) and np.all(again.variance == 4)
    assert np.array_equal(again.maps, [[0, 1], [2, 3]])
    with pytest.raises(UserError, match="missing autoencoder.encoder.enconv1.weight"):
        from_torch("efficientad", {k: v for k, v in tensors.items() if not k.startswith("autoencoder.0")}, state)


def test_medium_names():
    network = torch_pdn("pdn_medium", 12, False)
    assert {key.split(".")[0] for key in published_names("pdn_medium", parity.tensors(network))} == set(MEDIUM.values())


def test_hard_mean_is_that_of_the_quantile():
    rng = np.random.default_rng(0)
    distance = rng.random((3, 7, 9, 5)).astype(np.float32)
    distance[1] = np.round(distance[1] * 4)
    for q in (0.5, 0.9, 0.999):
        truth = [row[row >= np.quantile(row, q)].mean() for row in distance.astype(np.float64)]
        np.testing.assert_allclose(module._hard_mean(jnp.asarray(distance), q), truth, rtol=1e-5)


def test_jitter_by_hand():
    image = np.random.default_rng(0).random((64, 4, 4, 3)).astype(np.float32)
    out = np.asarray(module._jitter(jax.random.key(0), jax.random.key(1), jnp.asarray(image)))
    kinds = np.asarray(jax.random.randint(jax.random.key(0), (64,), 0, 3))
    factors = np.asarray(jax.random.uniform(jax.random.key(1), (64, 1, 1, 1), minval=0.8, maxval=1.2)).ravel()
    assert set(kinds) == {0, 1, 2}
    for x, y, kind, f in zip(image, out, kinds, factors, strict=True):
        grey = x @ np.array([0.299, 0.587, 0.114])
        base = (0, grey.mean(), grey[..., None])[kind]
        np.testing.assert_allclose(y, np.clip(f * x + (1 - f) * base, 0, 1), atol=1e-5)


def batch_of(images, size=4, penalty=True):
    count = len(images)
    padded = np.concatenate([images, np.full((size - count, *images.shape[1:]), 0.3, np.float32)])
    zeros = np.zeros(size, np.int32)
    extra = {"penalty": np.random.default_rng(9).random(padded.shape, np.float32)} if penalty else {}
    return Batch(padded, zeros, zeros, zeros, zeros, np.arange(size) < count, extra)


def test_statistics_and_calibration_are_those_of_the_definition():
    detector, frozen, state = built(validation=3)
    images = np.random.default_rng(0).random((3, 128, 128, 3), np.float32)
    key = jax.random.key(0)
    for phase in detector.phases[:2]:
        # one image, then two and a padded row
        for rows in (images[:1], images[1:]):
            state, _ = jax.jit(phase.update)(key, state, frozen, batch_of(rows))
        state = phase.finalize(key, state, frozen)
    backbone = backbones.backbone("pdn_small")
    features = np.asarray(parity.features(backbone, frozen["backbone"], images, ("features",))[0], np.float64)
    np.testing.assert_allclose(state.mean, features.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.variance, features.var((0, 1, 2)), rtol=1e-4)
    params = state.trained.variables["params"]
    normal = (images - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    student = np.asarray(PDN("pdn_small", 768).apply({"params": params["student"]}, normal), np.float64)
    restored = np.asarray(Autoencoder().apply({"params": params["autoencoder"]}, normal), np.float64)
    taught = (features - features.mean((0, 1, 2))) / features.std((0, 1, 2))
    local = ((taught - student[..., :384]) ** 2).mean(-1)
    whole = ((restored - student[..., 384:]) ** 2).mean(-1)
    phase = detector.phases[3]
    for rows in (images[:2], images[2:]):
        state, _ = jax.jit(phase.update)(key, state, frozen, batch_of(rows))
    state = phase.finalize(key, state, frozen)
    truth = [[np.quantile(maps, q) for q in (0.9, 0.995)] for maps in (local, whole)]
    np.testing.assert_allclose(state.maps, truth, rtol=1e-3)
    scaled = [0.1 * (maps - a) / (b - a) for maps, (a, b) in zip((local, whole), truth, strict=True)]
    combined = np.pad((scaled[0] + scaled[1]) / 2, ((0, 0), (4, 4), (4, 4)))
    place = np.clip((np.arange(128) + 0.5) / 4 - 0.5, 0, 31)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(32)))
    expected = np.einsum("ai,bij,cj->bac", weights, combined, weights)
    prediction = jax.jit(detector.predict)(state, frozen, images)
    np.testing.assert_allclose(prediction.map, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(prediction.score, prediction.map.max((1, 2)))


@pytest.mark.slow
def test_training_lowers_the_loss_and_ignores_padded_rows():
    detector, frozen, state = built(learning_rate=1e-3)
    state = state._replace(variance=jnp.ones(384))
    images = np.random.default_rng(0).random((2, 128, 128, 3), np.float32)
    update = jax.jit(detector.phases[2].update)
    batch = batch_of(images, 3)
    other = batch._replace(image=batch.image.copy())
    other.image[2] = 0.9
    key = jax.random.key(0)
    (one, first), (two, _) = update(key, state, frozen, batch), update(key, state, frozen, other)
    for a, b in zip(jax.tree.leaves(one.trained), jax.tree.leaves(two.trained), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for _ in range(6):
        state, info = update(key, state, frozen, batch)
    assert info["loss"] < 0.9 * first["loss"]
    np.testing.assert_allclose(info["loss"], info["loss_st"] + info["loss_ae"] + info["loss_stae"], rtol=1e-5)


def test_penalty_image_is_a_crop_and_sometimes_grey():
    detector, _, _ = built()
    augment = detector.phases[2].augment
    image = np.zeros((64, 96, 3), np.float32)
    made = [augment(np.random.default_rng(i), image)["penalty"] for i in range(40)]
    assert all(each.shape == image.shape and each.dtype == np.float32 for each in made)
    grey = sum(np.ptp(each, axis=-1).max() < 1e-6 for each in made)
    assert 4 <= grey <= 22


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(UserError, match="pdn_small or pdn_medium, not filter_bank"):
        efficientad(backbones.backbone("filter_bank"))
    with pytest.raises(UserError, match="multiples of 64"):
        built(size=160)
    with pytest.raises(UserError, match="no images in"):
        built(penalty_images=str(tmp_path))
    with pytest.raises(UserError, match="quantile_a < quantile_b"):
        built(quantile_a=0.99, quantile_b=0.9)
