"""DevNet against PyTorch and NumPy, and the balance of its batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import iadjax
from iadjax import backbones, data, detectors
from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, plain_features
from iadjax.config import base_config
from iadjax.data import Transform
from iadjax.detectors.supervised.devnet import devnet, saliency
from iadjax.errors import UserError
from iadjax.ops import per_channel
from iadjax.synthesis.rotation import rotate_nearest
from tests import torch_parity as parity
from tests.direct import batch_of, phases, predict, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")


def built(name="resnet18", layers=("layer1",), **options):
    backbone = backbones.backbone(name)
    frozen = {"backbone": backbone.init(jax.random.key(0), layers)}
    detector = devnet(backbone, layers=layers, steps=20, **options)
    return (
        backbone,
        frozen,
        detector,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (64, 64, 3))),
    )


def test_score_by_hand():
    layers = ("layer1", "layer2")
    backbone, frozen, detector, state = built(layers=layers, top=0.2)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    kernel, bias = (np.asarray(state.variables["params"]["conv"][name], np.float64) for name in ("kernel", "bias"))
    score = np.zeros(2)

    def upsample(x, target):
        source = x.shape[1]
        place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(source)))
        return np.einsum("ai,bij...,cj->bac...", weights, x, weights)

    for small in (image, image[:, ::2, ::2]):
        a, b = (np.asarray(x, np.float64) for x in parity.features(backbone, frozen["backbone"], small, layers))
        scores = np.abs(np.concatenate([a, upsample(b, a.shape[1])], -1) @ kernel + bias)
        largest = np.sort(scores.reshape(2, -1), axis=1)[:, -int(0.2 * scores[0].size) :]
        score += largest.mean(1) / 2
    np.testing.assert_allclose(predict(detector, state, frozen, image).score, score, rtol=1e-4)


def test_map_is_the_size_of_the_gradient_of_the_normalised_image():
    torch = pytest.importorskip("torch")
    # a single linear layer: one convolution over patches of the image
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 4, 3, 6)).astype(np.float32)
    mean, std = (np.array(each, np.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))

    def features(variables, image, layers):
        del variables, layers
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = (image - per_channel(mean, image)) / per_channel(std, image)
        return (jax.lax.conv_general_dilated(x, weight, (4, 4), "VALID", dimension_numbers=dimensions),)

    backbone = Backbone("linear", ("layer1",), lambda key, layers: {}, plain_features(features))
    detector = devnet(backbone, layers=("layer1",), scales=2, top=0.1)
    frozen = {"backbone": {}}
    state = detector.init(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (32, 32, 3)))
    image = rng.random((2, 32, 32, 3), np.float32)
    conv = state.variables["params"]["conv"]
    x = parity.to_torch((image - mean) / std).requires_grad_()
    total = 0
    for small in (x, x[:, :, ::2, ::2]):
        levels = torch.nn.functional.conv2d(small, torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()), stride=4)
        scores = torch.einsum("bchw,c->bhw", levels, torch.from_numpy(np.array(conv["kernel"]))) + float(conv["bias"])
        flat = scores.abs().flatten(1)
        total = total + flat.topk(max(1, int(0.1 * flat.shape[1])), dim=1)[0].mean(1) / 2
    total.sum().backward()
    size = x.grad.abs().sum(1).double().numpy()
    low = size.min((1, 2), keepdims=True)
    high = np.percentile(size, 99, axis=(1, 2), keepdims=True)
    truth = ndimage.gaussian_filter(np.clip((size - low) / (high - low), 0, 1), (0, 4, 4))
    prediction = predict(detector, state, frozen, image)
    np.testing.assert_allclose(prediction.score, total.detach(), rtol=1e-4)
    parity.assert_close(prediction.map, truth, 1e-4)
    assert np.array_equal(saliency(jnp.ones((1, 8, 8, 3)), 0.99, 0.0), np.zeros((1, 8, 8)))


def test_weights_and_statistics_are_trained_or_not():
    image = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    for train in (True, False):
        _, frozen, detector, state = built(train_backbone=train)
        batch = batch_of(detector, frozen, image, label=[0, 1, 0, 1], extra={"rotated": image})
        new, _ = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
        assert ("backbone" in state.variables["params"]) == ("batch_stats" in state.variables) == train
        changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.variables, new.variables)
        assert all(jax.tree.leaves(changed))


def test_statistics_move_once_for_each_scale():
    image = np.random.default_rng(0).random((3, 64, 64, 3), np.float32)
    valid = np.array([True, True, False])
    backbone, frozen, detector, state = built()
    batch = batch_of(detector, frozen, image, label=[0, 1, 0], valid=valid, extra={"rotated": image})
    new, _ = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    network = frozen["backbone"]
    for small in (image, image[:, ::2, ::2]):
        _, stats = backbone.features(network, small, ("layer1",), train=True, valid=valid)
        network = {**network, "batch_stats": stats}
    for a, b in zip(*map(jax.tree.leaves, (new.variables["batch_stats"]["backbone"], stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_training_images_are_rotated_by_any_angle():
    detector = devnet(backbones.backbone("filter_bank"), layers=("layer1",))
    image = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    augment = phases(detector)[0].augment
    rotated = [augment(np.random.default_rng(i), image, None)["rotated"] for i in range(20)]
    assert all(each.shape == image.shape and each.dtype == np.float32 for each in rotated)
    assert len({each.tobytes() for each in rotated}) == 20
    # nearest neighbours: every pixel is one of the image, or black
    values = {*image.reshape(-1, 3)[:, 0].tolist(), 0.0}
    assert set(rotated[0][..., 0].ravel().tolist()) <= values
    np.testing.assert_array_equal(rotate_nearest(image, 90.0), np.rot90(image))


def test_defaults_are_the_authors_and_not_those_of_dra():
    options = detectors.options("devnet")
    assert (options["steps"], options["decay_every"], options["anomaly_fraction"]) == (1000, 200, 0.5)
    assert phases(devnet(backbones.backbone("filter_bank"), layers=("layer1",)))[0].anomaly_fraction == 0.5


def test_batches_are_balanced_and_labelled():
    found = data.load("synthetic", category="wood")
    split = data.split(found, "supervised", 0.1, seed=3, num_anomalies=4)
    normal = [item for item in split.train if not item.label]
    assert len(split.train) - len(normal) == 4 and not set(split.train) & set(split.test)
    assert len(split.test) == len(found.test) - 4
    seen, anomalies = [], set()
    options = {"shuffle": (0, 0, 0), "anomaly_fraction": 1 / 3}
    rows = list(data.batches(found, split.train, Transform(16), 6, **options))
    assert len(rows) == data.num_batches(split.train, 6, 1 / 3) == -(-len(normal) // 4)
    for batch in rows:
        assert batch.label[batch.valid].sum() == 2
        seen += batch.index[batch.valid & (batch.label == 0)].tolist()
        anomalies |= set(batch.index[batch.label == 1].tolist())
    assert len(seen) == len(set(seen)) == len(normal)
    assert {split.train[i].label for i in anomalies} == {1}


def test_hard_setting_removes_the_whole_kind_and_names_the_kinds():
    found = data.load("synthetic", category="wood")
    kind = next(item.defect for item in found.test if item.label)
    split = data.split(found, "supervised", 0.0, seed=0, num_anomalies=2, defect=kind)
    assert {item.defect for item in split.train if item.label} == {kind}
    assert kind not in {item.defect for item in split.test}
    with pytest.raises(UserError, match=kind):
        data.split(found, "supervised", 0.0, seed=0, defect="none of them")
    with pytest.raises(UserError, match="protocol.num_anomalies must be between"):
        data.split(found, "supervised", 0.0, seed=0, num_anomalies=1000)


def test_few_shots_do_not_depend_on_the_order_of_files():
    found = data.load("synthetic", category="wood,washer")
    split = data.split(found, "few_shot", 0.0, seed=5, num_shots=3)
    assert sorted(item.category for item in split.train) == ["washer"] * 3 + ["wood"] * 3
    turned = data.split(found._replace(train=found.train[::-1]), "few_shot", 0.0, seed=5, num_shots=3)
    assert set(turned.train) == set(split.train) and split.test == found.test
    assert set(data.split(found, "few_shot", 0.0, seed=6, num_shots=3).train) != set(split.train)


def test_without_labelled_anomalies_it_says_what_to_set(tmp_path):
    config = base_config("devnet", "synthetic")
    config.data.update({"category": "washer", "resize": 32})
    config.detector.layers = ("layer1",)
    with pytest.raises(UserError, match="protocol.name=supervised"):
        iadjax.fit(config, tmp_path / "run")


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="top must be in"):
        built(top=0.0)
    with pytest.raises(UserError, match="quantile must be in"):
        built(quantile=0.0)
    backbone = backbones.backbone("tf_efficientnet_b0")
    _, frozen, detector, state = built()
    detector = devnet(backbone, layers=("stem",))
    frozen = {"backbone": backbone.init(jax.random.key(0), ("stem",))}
    state = detector.init(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (64, 64, 3)))
    image = np.zeros((2, 64, 64, 3), np.float32)
    batch = batch_of(detector, frozen, image, extra={"rotated": image})
    with pytest.raises(UserError, match="BatchNorm of tf_efficientnet_b0 cannot be trained"):
        phases(detector)[0].update(jax.random.key(0), state, frozen, batch)
