"""DevNet against PyTorch and NumPy, and the balance of its batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iadjax
from iadjax import backbones, data
from iadjax.config import base_config
from iadjax.data import Transform
from iadjax.detector import Batch, DataSpec
from iadjax.detectors.supervised.devnet import devnet
from iadjax.errors import UserError
from tests import torch_parity as parity


def built(name="resnet18", layers=("layer1",), **options):
    backbone = backbones.backbone(name)
    frozen = {"backbone": backbone.init(jax.random.key(0), layers)}
    detector = devnet(backbone, layers=layers, steps=20, **options)
    return (
        backbone,
        frozen,
        detector,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, DataSpec(4, (64, 64, 3), ("a",))),
    )


def test_score_and_map_by_hand():
    layers = ("layer1", "layer2")
    backbone, frozen, detector, state = built(layers=layers, top=0.2)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    kernel, bias = (np.asarray(state.variables["params"]["conv"][name], np.float64) for name in ("kernel", "bias"))
    score, maps = np.zeros(2), np.zeros((2, 64, 64))

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
        maps += upsample(scores, 64) / 2
    prediction = jax.jit(detector.predict)(state, frozen, image)
    np.testing.assert_allclose(prediction.score, score, rtol=1e-4)
    parity.assert_close(prediction.map, maps, 1e-4)


def test_head_loss_and_gradient_equal_pytorch():
    torch = pytest.importorskip("torch")
    layers = ("layer1",)
    backbone, frozen, detector, state = built(layers=layers, scales=1, train_backbone=False, clip_norm=1e9, weight_decay=0.0)
    rng = np.random.default_rng(0)
    image, label = rng.random((6, 64, 64, 3), np.float32), np.array([0, 1, 0, 0, 1, 0], np.int32)
    zeros = np.zeros(6, np.int32)
    key = jax.random.key(7)
    batch = Batch(image, zeros, label, zeros, zeros, np.array([True] * 5 + [False]))
    features = parity.to_torch(parity.features(backbone, frozen["backbone"], image, layers)[0])
    conv = torch.nn.Conv2d(features.shape[1], 1, 1)
    params = state.variables["params"]["conv"]
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.array(params["kernel"]))[None, :, None, None])
        conv.bias.copy_(torch.from_numpy(np.array(params["bias"])[None]))
    scores = conv(features).flatten(1).abs()
    score = scores.topk(int(0.1 * scores.shape[1]), dim=1)[0].mean(1)
    reference = torch.from_numpy(np.array(jax.random.normal(key, (5000,))))
    dev = (score - reference.mean()) / reference.std()
    y = torch.from_numpy(label)
    value = torch.where(y == 1, (5 - dev).clamp(min=0), dev.abs())[:5].mean()
    value.backward()
    new, info = jax.jit(detector.phases[0].update)(key, state, frozen, batch)
    np.testing.assert_allclose(info["loss"], value.item(), rtol=1e-3)
    # Adam's first moment after one step is a tenth of the gradient
    moment = next(part for part in jax.tree.leaves(new.optimizer, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu"))
    parity.assert_close(10 * moment.mu["conv"]["kernel"], conv.weight.grad.numpy()[0, :, 0, 0], 1e-3)
    np.testing.assert_allclose(10 * moment.mu["conv"]["bias"], conv.bias.grad.item(), rtol=1e-3)


def test_backbone_is_trained_or_not():
    image = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    zeros = np.zeros(4, np.int32)
    batch = Batch(image, zeros, np.array([0, 1, 0, 1]), zeros, zeros, np.ones(4, bool))
    for train in (True, False):
        _, frozen, detector, state = built(train_backbone=train)
        new, _ = jax.jit(detector.phases[0].update)(jax.random.key(0), state, frozen, batch)
        assert ("backbone" in state.variables["params"]) == train
        changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.variables["params"], new.variables["params"])
        assert all(jax.tree.leaves(changed))


def test_batches_are_balanced_and_labelled():
    found = data.load("synthetic", category="wood")
    split = data.split(found, "supervised", 0.1, seed=3, num_anomalies=4)
    normal = [item for item in split.train if not item.label]
    assert len(split.train) - len(normal) == 4 and not set(split.train) & set(split.test)
    assert len(split.test) == len(found.test) - 4
    seen, anomalies = [], set()
    options = {"shuffle": (0, 0, 0), "anomaly_share": 1 / 3}
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
