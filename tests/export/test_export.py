"""Exported files: the same scores without configs, refusals, and the scripts."""

import csv
import importlib.util
import json
import shutil

import numpy as np
import pytest

import iadjax
from iadjax.errors import UserError
from iadjax.export import export, load_exported, write
from tests.conftest import draw_tree
from tests.detectors.test_contract import CASES, config_of
from tests.tiny import tiny_networks

# one of every kind: a bank, Gaussians, a flow, a discriminator; the others take minutes to fit and compile
QUICK = {"patchcore", "padim", "fastflow", "simplenet"}


def row(name):
    return pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with tiny_networks():
        yield


@pytest.fixture(scope="module", params=[row(name) for name in sorted(CASES)])
def fitted(request, tmp_path_factory):
    """A run of each detector."""
    root = tmp_path_factory.mktemp(request.param)
    config = config_of(request.param, draw_tree(root))
    if request.param == "fastflow":
        config.detector.update({"flow_steps": 1, "layers": ("layer1",)})
    return iadjax.fit(config, root / "run")


def test_the_file_predicts_what_the_run_predicts(fitted, tmp_path):
    path = export(fitted, tmp_path)
    facts = json.loads(path.with_name(path.name + ".json").read_text())
    # a detector that does not localise has no difference of maps
    assert max(facts["check"]["score_difference"], facts["check"].get("map_difference", 0)) <= write.TOLERANCE
    assert facts["threshold"] == fitted.threshold
    # another folder, and nothing of the run beside it
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (path, path.with_name(path.name + ".json")):
        shutil.move(file, moved / file.name)
    exported = load_exported(moved / path.name)
    files = [item.file for item in fitted.data.split.test]
    found, truth = exported.predict(files), fitted.predict(files)
    np.testing.assert_allclose(found.score, truth.score, atol=1e-4 * np.abs(truth.score).max())
    if truth.map is not None:
        np.testing.assert_allclose(found.map, truth.map, atol=1e-4 * np.abs(truth.map).max())
    # any number of images
    side = fitted.config["data"]["resize"]
    images = np.random.default_rng(0).random((3, side, side, 3), np.float32)
    together, alone = exported.predict_batch(images), exported.predict_batch(images[1:2])
    np.testing.assert_allclose(alone.score[0], together.score[1], rtol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    return iadjax.fit(config_of("patchcore", draw_tree(root)), root / "run")


def test_a_fixed_batch(run, tmp_path):
    exported = load_exported(export(run, tmp_path, batch=2))
    files = [item.file for item in run.data.split.test][:3]
    np.testing.assert_allclose(exported.predict(files).score, run.predict(files).score, rtol=1e-5)


def test_files_are_scored_by_an_exported_detector(run, tmp_path):
    path = export(run, tmp_path)
    root = run.config["data"]["root"]
    counts = [
        iadjax.predict_files(each, f"{root}/test", tmp_path / name)
        for name, each in (("run", run), ("file", load_exported(path)))
    ]
    assert counts == [4, 4]
    rows = [list(csv.DictReader((tmp_path / name / "scores.csv").read_text().splitlines())) for name in ("run", "file")]
    assert [each["anomalous"] for each in rows[0]] == [each["anomalous"] for each in rows[1]]


def test_a_program_that_disagrees_is_not_written(run, tmp_path, monkeypatch):
    program = write.program_of

    def wrong(*about):
        right = program(*about)
        return lambda image: (right(image)[0] * np.float32(1.001), right(image)[1])

    monkeypatch.setattr(write, "program_of", wrong)
    with pytest.raises(UserError, match="disagrees with the detector by 0.001"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_decision_that_flips_is_not_written(run, tmp_path, monkeypatch):
    program = write.program_of

    def wrong(*about):
        right = program(*about)
        return lambda image: (right(image)[0] - np.float32(1e-5), right(image)[1])

    monkeypatch.setattr(write, "program_of", wrong)
    # the threshold is at the score of one of the images
    score = float(run.predict([run.data.split.test[0].file]).score[0])
    monkeypatch.setitem(run.threshold, "value", score)
    with pytest.raises(UserError, match="decides otherwise on 1 of 4 images"):
        export(run, tmp_path / "out")


def test_refusals(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no export format 'stablehlow'; did you mean 'stablehlo'"):
        export(run, tmp_path, "stablehlow")
    with pytest.raises(UserError, match="there is no file .*nowhere.stablehlo"):
        load_exported(tmp_path / "nowhere.stablehlo")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jax2onnx" else find(name))
    with pytest.raises(UserError, match=r"onnx needs .*jax2onnx.* not installed: python -m pip install"):
        export(run, tmp_path, "onnx")


def test_nothing_larger_than_a_file_may_be(run, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LARGEST", 1000)
    with pytest.raises(UserError, match="holds .* GiB and a file of either format at most 2"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_predicts_what_the_run_predicts(tmp_path):
    pytest.importorskip("jax2onnx", reason="needs jax2onnx, which docs/export.md says how to install")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    config = config_of("padim", draw_tree(tmp_path))
    # an 8 x 8 map of 256 channels: a convolution that CPUs compute in a form of their own
    config.backbone.update({"name": "resnet18", "weights": "random"})
    config.data.resize = 128
    run = iadjax.fit(config, tmp_path / "run")
    exported = load_exported(export(run, tmp_path / "out", "onnx"))
    files = [item.file for item in run.data.split.test]
    found, truth = exported.predict(files), run.predict(files)
    np.testing.assert_allclose(found.score, truth.score, rtol=1e-4)
    np.testing.assert_allclose(found.map, truth.map, atol=1e-4 * np.abs(truth.map).max())
