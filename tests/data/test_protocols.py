"""Protocols: who may see what, for any data set, seed and order of files."""

import importlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iadjax
from iadjax import data, detectors
from iadjax.config import base_config
from iadjax.data.dataset import Dataset, Item, read
from iadjax.data.protocols import MOST_NOISE, split
from iadjax.detector import Detector, Prediction
from iadjax.errors import UserError


def made(categories=2, train=20, good=6, bad=8):
    """An index; nothing in it is ever read."""
    names = tuple(f"c{i}" for i in range(categories))
    items = [Item(f"{name}/train/good/{i:03d}.png", name, 0, "good") for name in names for i in range(train)]
    test = []
    for name in names:
        test += [Item(f"{name}/test/good/{i:03d}.png", name, 0, "good") for i in range(good)]
        test += [Item(f"{name}/test/{kind}/{i:03d}.png", name, 1, kind) for kind in ("dent", "hole") for i in range(bad // 2)]
    return Dataset("made", names, tuple(items), tuple(test), lambda item: None, True)


PROTOCOLS = (
    {"name": "unsupervised"},
    {"name": "multi_class"},
    {"name": "few_shot", "num_shots": 3, "rotations": 4},
    {"name": "noisy", "noise_ratio": 0.1},
    {"name": "noisy", "noise_ratio": 0.1, "keep_in_test": True},
    {"name": "supervised", "num_anomalies": 2},
    {"name": "supervised", "num_anomalies": 2, "defect": "hole"},
    {"name": "zero_shot"},
    {"name": "zero_shot", "test_batch": True},
)


@settings(max_examples=40, deadline=None)
@given(
    options=st.sampled_from(PROTOCOLS),
    seed=st.integers(0, 2**31),
    holdout=st.sampled_from([0.0, 0.1, 0.3]),
    sizes=st.tuples(st.integers(2, 4), st.integers(20, 40), st.integers(1, 9), st.sampled_from([6, 8, 20])),
    order=st.randoms(use_true_random=False),
)
def test_every_protocol_keeps_its_word(options, seed, holdout, sizes, order):
    dataset = made(*sizes)
    parts = split(dataset, holdout=holdout, seed=seed, **options)
    train, validation, test = ({item.path for item in part} for part in parts)
    assert all(len(paths) == len(part) for paths, part in zip((train, validation, test), parts, strict=True))
    # nobody sees the test but where the protocol says so
    sees_test = options.get("keep_in_test") or options.get("test_batch")
    assert bool(train & test) == bool(sees_test) and not validation & (train | test)
    assert all(not item.label for item in parts.validation)
    # labels are for the supervised alone
    assert any(item.label for item in parts.train) == (options["name"] == "supervised")
    assert parts == split(dataset, holdout=holdout, seed=seed, **options)

    def shuffled(items):
        items = list(items)
        order.shuffle(items)
        return tuple(items)

    mixed = dataset._replace(train=shuffled(dataset.train), test=shuffled(dataset.test))
    again = split(mixed, holdout=holdout, seed=seed, **options)
    assert all(set(one) == set(two) for one, two in zip(parts, again, strict=True))


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_few_shot_sizes(k):
    parts = split(made(), "few_shot", 0.1, 0, num_shots=k)
    assert len(parts.train) == 2 * k and len(parts.validation) == 4
    rotated = split(made(), "few_shot", 0.1, 0, num_shots=k, rotations=5)
    assert len(rotated.train) == 10 * k and {item.rotation for item in rotated.train} == {0, 72, 144, 216, 288}
    assert {item.path for item in parts.train} <= {item.path for item in rotated.train}


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.15, 0.2])
def test_noisy_sizes(ratio):
    dataset = made(2, 100, 10, 40)
    parts = split(dataset, "noisy", 0.0, 0, noise_ratio=ratio)
    moved = [item for item in parts.train if item not in set(dataset.train)]
    assert len(moved) == 2 * int(ratio * 100) and all(item.defect != "good" and item.label == 0 for item in moved)
    assert len(parts.test) == len(dataset.test) - len(moved)
    assert len(split(dataset, "noisy", 0.0, 0, noise_ratio=ratio, keep_in_test=True).test) == len(dataset.test)
    # at most 75 % of the anomalies
    few = split(made(1, 100, 10, 8), "noisy", 0.0, 0, noise_ratio=0.2)
    assert sum(item.defect != "good" for item in few.train) == int(MOST_NOISE * 8)


def test_supervised_settings():
    general = split(made(), "supervised", 0.0, 0, num_anomalies=3)
    assert sum(item.label for item in general.train) == 6 and sum(item.label for item in general.test) == 10
    hard = split(made(), "supervised", 0.0, 0, num_anomalies=3, defect="hole")
    assert {item.defect for item in hard.train if item.label} == {"hole"}
    assert {item.defect for item in hard.test if item.label} == {"dent"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "few_shots"}, "there is no protocol 'few_shots'; did you mean 'few_shot'"),
        ({"name": "few_shot", "num_shots": 21}, "protocol.num_shots must be between 1 and the"),
        ({"name": "few_shot", "rotations": 0}, "protocol.rotations must be at least 1"),
        ({"name": "noisy", "noise_ratio": 1.0}, r"protocol.noise_ratio must be in \(0, 1\), got 1.0"),
        ({"name": "noisy", "noise_ratio": 0.01}, "moves none in c0; raise protocol.noise_ratio"),
        ({"name": "supervised", "defect": "hol"}, "there is no defect 'hol' in the images; did you mean 'hole'"),
        ({"name": "continual"}, "is a sequence of fits"),
    ],
)
def test_mistakes_are_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        split(made(), holdout=0.1, seed=0, **options)
    with pytest.raises(UserError, match="multi_class needs several categories"):
        split(made(1), "multi_class", 0.1, 0)


def test_shots_by_name_are_the_first_files_and_then_the_next():
    dataset = made()
    names = sorted(item.path for item in dataset.train if item.category == "c0")
    for seed in (0, 1):
        parts = split(dataset._replace(train=dataset.train[::-1]), "few_shot", 0.1, seed, num_shots=3, shots_by_name=True)
        assert sorted(item.path for item in parts.train if item.category == "c0") == names[3 * seed : 3 * seed + 3]
        assert parts.validation and not set(parts.validation) & set(parts.train)
    with pytest.raises(UserError, match="protocol.shots_by_name takes images 300 to 302 by name, and c0 has"):
        split(dataset, "few_shot", 0.1, 100, num_shots=3, shots_by_name=True)


def test_a_rotated_image_is_the_rotated_image():
    dataset = data.load("synthetic", category="washer")
    parts = data.split(dataset, "few_shot", 0.1, 0, num_shots=1, rotations=4)
    image, mask = read(dataset, parts.train[0])
    for item, times in zip(parts.train, range(4), strict=True):
        rotated, mask_rotated = read(dataset, item)
        # whole right angles move pixels and do nothing else; interpolation may round by one grey level
        assert np.abs(rotated.astype(int) - np.rot90(image, times)).max() <= 1
        assert rotated.dtype == np.uint8 and np.array_equal(mask_rotated, np.rot90(mask, times))


def zero(backbone, *, sigma: float = 0.0) -> Detector:
    """A detector without phases: an image's distance from grey."""

    def predict(state, frozen, batch):
        maps = jnp.abs(batch.image - 0.5).mean(-1)
        return Prediction(maps.max((1, 2)), maps)

    return Detector(lambda key, frozen, spec: {"nothing": jnp.zeros(1)}, lambda spec: (), predict)


def test_zero_shot_needs_no_training_images(tmp_path, monkeypatch, tree):
    monkeypatch.setitem(detectors.MODULES, "zero", __name__)
    config = base_config("zero", "folder")
    config.data.update({"root": str(tree), "resize": 32, "batch_size": 4, "workers": 0})
    config.protocol.name = "zero_shot"
    run = iadjax.fit(config, tmp_path / "run")
    assert run.threshold is None and run.data.split.train == ()
    assert iadjax.evaluate(iadjax.load(tmp_path / "run"))["bolt"]["image_auroc"] == 1
    fitted = base_config("patchcore", "folder")
    fitted.data.update({"root": str(tree), "resize": 32, "batch_size": 4, "workers": 0})
    fitted.protocol.name = "zero_shot"
    with pytest.raises(UserError, match="protocol.test_batch=true"):
        iadjax.fit(fitted, tmp_path / "other")
    fitted.protocol.test_batch = True
    run = iadjax.fit(fitted, tmp_path / "batched")
    assert len(run.data.split.train) == len(run.data.split.test) == 4


@pytest.fixture
def sequence():
    """Three synthetic categories, one after another, in seconds."""
    config = base_config("patchcore", "synthetic")
    config.data.update({"category": "wood,washer,fabric", "resize": 32, "batch_size": 16})
    config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.02})
    config.protocol.name = "continual"
    return config


def test_continual_learning(sequence, tmp_path):
    run, found = iadjax.fit_sequence(sequence, tmp_path / "run")
    names = ["wood", "washer", "fabric"]
    assert found["steps"] == names
    entry = found["metrics"]["image_auroc"]
    matrix = np.array(entry["matrix"])
    assert np.all(np.isnan(matrix[np.triu_indices(3, 1)])) and np.all(matrix[np.tril_indices(3)] > 0.5)
    assert entry["average_accuracy"] == pytest.approx(matrix[-1].mean())
    lost = [np.nanmax(matrix[:-1, j]) - matrix[-1, j] for j in range(2)]
    assert entry["forgetting"]["average_previous"] == pytest.approx(np.mean(lost))
    assert entry["forgetting"]["average_all"] == pytest.approx(sum(lost) / 3)
    # the bank grew by every task's share and holds rows of them all
    per_task = [int(iadjax.load(path).state.rows) for path in sorted((tmp_path / "run/steps").iterdir())]
    assert per_task[1] == 2 * per_task[0] and per_task[2] == 3 * per_task[0]
    first, last = (np.asarray(iadjax.load(tmp_path / f"run/steps/{name}").state.features) for name in ("00_wood", "02_fabric"))
    assert np.mean([np.any(np.all(last == row, axis=1)) for row in first]) > 0.2
    # the table of the last step is the last row
    table = json.loads((tmp_path / "run/metrics.json").read_text())
    assert [table[name]["image_auroc"] for name in names] == matrix[-1].tolist()
    assert set(run.data.dataset.categories) == set(names)


def test_a_stopped_sequence_resumes_to_the_same_bytes(sequence, tmp_path, monkeypatch):
    iadjax.fit_sequence(sequence, tmp_path / "whole")
    module = importlib.import_module("iadjax.experiment.sequence")
    fit = module.fit

    def stop(config, *rest, **options):
        if config["data"]["category"] == "fabric":
            raise KeyboardInterrupt
        return fit(config, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            iadjax.fit_sequence(sequence, tmp_path / "parts")
    with pytest.raises(UserError, match="--resume"):
        iadjax.fit_sequence(sequence, tmp_path / "parts")
    iadjax.fit_sequence(sequence, tmp_path / "parts", resume=True)
    for name in ("scores.csv", "sequence.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.mark.parametrize("name", ["padim", "simplenet"])
def test_what_a_detector_carries(name, tmp_path):
    """PaDiM begins anew; a trained network goes on from its weights, without touching those of the run before."""
    config = base_config(name, "synthetic")
    config.data.update({"category": "wood", "resize": 32, "batch_size": 16})
    config.detector.layers = ("layer1",)
    if name == "simplenet":
        config.detector.update({"pretrain_dimension": 8, "target_dimension": 8, "hidden": 8, "epochs": 1})
    else:
        config.detector.num_channels = 0
    first = iadjax.fit(config, tmp_path / "first")
    scores = first.predict_batch(np.zeros((1, 32, 32, 3), np.float32)).score
    config.data.category = "washer"
    alone = iadjax.fit(config, tmp_path / "alone")
    after = iadjax.fit(config, tmp_path / "after", start=first)
    again = first.predict_batch(np.zeros((1, 32, 32, 3), np.float32)).score
    assert np.array_equal(scores, again)
    same = np.array_equal(
        alone.predict_batch(np.ones((1, 32, 32, 3), np.float32)).score,
        after.predict_batch(np.ones((1, 32, 32, 3), np.float32)).score,
    )
    assert same == (name == "padim")


def test_transfer(sequence, tmp_path):
    sequence.protocol.update({"name": "transfer", "source": "wood,granite", "num_shots": 2})
    sequence.data.category = "washer"
    _, found = iadjax.fit_sequence(sequence, tmp_path / "run")
    assert found["steps"] == ["source", "target"]
    before, after = np.array(found["metrics"]["image_auroc"]["matrix"])[:, 0]
    # two washers say more of washers than wood and granite do
    assert after > before
    record = json.loads((tmp_path / "run/steps/01_target/run.json").read_text())
    assert len(record["drawn_paths"]) == 2 and all(path.startswith("washer/train/") for path in record["drawn_paths"])
    sequence.protocol.source = "washer"
    with pytest.raises(UserError, match="both in protocol.source and in data.category"):
        iadjax.fit_sequence(sequence, tmp_path / "other")
    sequence.protocol.source = ""
    with pytest.raises(UserError, match="transfer needs --config.protocol.source"):
        iadjax.fit_sequence(sequence, tmp_path / "other")
