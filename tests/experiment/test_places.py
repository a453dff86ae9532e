"""Where runs find their images and weights, what a run is, and what is checked before a fit."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax import backbones, detectors
from iadjax import config as configs
from iadjax.config import base_config
from iadjax.errors import UserError
from iadjax.experiment.distill import save_teacher
from iadjax.export import export
from tests.detectors.test_contract import config_of
from tests.tiny import tiny_networks


@pytest.fixture
def quick(tree_config):
    tree_config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.1})
    return tree_config


def refuse(config, workdir, match):
    with pytest.raises(UserError, match=match):
        iadjax.fit(config, workdir)
    assert not workdir.exists()


def test_images_under_another_root_continue_a_run_and_other_images_do_not(quick, tree, tmp_path):
    run = iadjax.fit(quick, tmp_path / "run")
    began = json.loads((tmp_path / "run/run.json").read_text())["started"]
    moved = shutil.copytree(tree, tmp_path / "moved")
    quick.data.root = str(moved)
    assert iadjax.fit(quick, tmp_path / "run", resume=True).threshold == run.threshold
    before = (tmp_path / "run/run.json").read_text()
    assert json.loads(before)["started"] == began
    pixels = np.array(Image.open(moved / "train/good/000.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(moved / "train/good/000.png")
    with pytest.raises(UserError, match="was begun on other images .*; give it those, or another --workdir"):
        iadjax.fit(quick, tmp_path / "run", resume=True)
    assert (tmp_path / "run/run.json").read_text() == before


def test_new_test_images_are_no_other_run(quick, tree, tmp_path):
    iadjax.fit(quick, tmp_path / "run")
    (tree / "test/good/000.png").unlink()
    run = iadjax.fit(quick, tmp_path / "run", resume=True)
    assert iadjax.evaluate(run, speed=False)["mean"]["images"] == 3


def test_a_run_of_relative_paths_works_from_every_folder_and_after_it_moved(quick, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tree.parent)
    quick.data.root = tree.name
    iadjax.fit(quick, "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    table = iadjax.evaluate(iadjax.load(tmp_path / "run"), speed=False)
    shutil.move(tmp_path / "run", elsewhere / "run")
    shutil.move(tree, elsewhere / "images")
    run = iadjax.load("run")
    prediction = run.predict([elsewhere / "images/test/dent/000.png"])
    with pytest.raises(UserError, match=r"there is no folder .*bolt; give an existing one with --config.data.root=DIR"):
        iadjax.evaluate(run)
    again = iadjax.load("run", data_root="images")
    # the category is called as its folder
    assert iadjax.evaluate(again, speed=False)["images"] == table["bolt"]
    assert np.array_equal(again.predict([elsewhere / "images/test/dent/000.png"]).score, prediction.score)


def test_plain_folders_are_found_from_every_folder(quick, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tree)
    quick.data.update({"root": "", "normal": "train/good", "abnormal": "test/dent"})
    iadjax.fit(quick, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert iadjax.evaluate(iadjax.load("run"), speed=False)["mean"]["images"] == 3


def test_a_run_carries_its_weights(quick, tmp_path):
    backbone = backbones.backbone("pdn_small")
    file = tmp_path / "teacher.safetensors"
    save_teacher("pdn_small", backbones.load_weights(backbone, "random", backbone.layers, jax.random.key(0)), file)
    quick.data.resize = 48
    quick.backbone.update({"name": "pdn_small", "weights": str(file)})
    quick.detector.layers = ("features",)
    run = iadjax.fit(quick, tmp_path / "run")
    assert (tmp_path / "run/weights/backbone.safetensors").read_bytes() == file.read_bytes()
    file.rename(tmp_path / "kept.safetensors")
    assert iadjax.load(tmp_path / "run").weights == run.weights
    # a run that lost them says what to give, and takes it
    shutil.rmtree(tmp_path / "run/weights")
    with pytest.raises(UserError, match="no weights file .*teacher.safetensors"):
        iadjax.load(tmp_path / "run")
    again = iadjax.load(tmp_path / "run", weights=str(tmp_path / "kept.safetensors"))
    assert np.array_equal(
        again.predict(np.full((48, 48, 3), 99, np.uint8)[None]).score, run.predict(np.full((1, 48, 48, 3), 99, np.uint8)).score
    )
    save_teacher("pdn_small", backbones.load_weights(backbone, "random", backbone.layers, jax.random.key(1)), file)
    with pytest.raises(UserError, match="was fitted on other weights"):
        iadjax.load(tmp_path / "run")


def test_the_first_day_normal_images_alone(quick, tree, tmp_path, capsys):
    shutil.rmtree(tree / "test")
    shutil.rmtree(tree / "ground_truth")
    run = iadjax.fit(quick, tmp_path / "run")
    assert "the threshold rests on 1 held-out normal images" in capsys.readouterr().err
    table = iadjax.evaluate(run, output=tmp_path / "run", speed=False)
    assert "the test part holds no images" in capsys.readouterr().err
    assert math.isnan(table["mean"]["image_auroc"]) and table["mean"]["images"] == 1
    assert json.loads((tmp_path / "run/metrics.json").read_text())["mean"]["image_auroc"] is None
    assert (tmp_path / "run/report/index.html").is_file()
    assert export(run, tmp_path / "export").is_file()
    assert iadjax.predict_files(iadjax.load(tmp_path / "run"), tree / "train", tmp_path / "out") == 6


def test_normal_images_alone_without_held_out_ones(quick, tree, tmp_path):
    shutil.rmtree(tree / "test")
    shutil.rmtree(tree / "ground_truth")
    quick.threshold.holdout = 0.0
    run = iadjax.fit(quick, tmp_path / "run")
    assert run.threshold is None
    with pytest.raises(UserError, match="the test split holds no images"):
        iadjax.evaluate(run, output=tmp_path / "run")
    assert export(run, tmp_path / "export").is_file()


def test_a_bank_of_one_patch_has_scores(quick, tmp_path, capsys):
    quick.detector.update({"coreset_ratio": 1e-6, "num_neighbors": 9})
    run = iadjax.fit(quick, tmp_path / "run")
    assert "the bank holds 1 patches, fewer than detector.num_neighbors=9" in capsys.readouterr().err
    found = run.predict(np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8))
    # the plain distance: the largest of the map before it is smoothed
    quick.detector.update({"reweight": False})
    plain = iadjax.fit(quick, tmp_path / "plain").predict(np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8))
    assert np.all(found.score > 0) and np.array_equal(found.score, plain.score)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("threshold.quantile", 1.5, "threshold option quantile must be from 0 to 1, got 1.5"),
        ("threshold.quantile", math.nan, "config.threshold.quantile must be a finite number"),
        ("threshold.holdout", -0.1, "config.threshold.holdout must be at least 0"),
        ("evaluate.eval_size", -1, "config.evaluate.eval_size must be at least 0"),
        ("evaluate.map_sigma", math.inf, "config.evaluate.map_sigma must be a finite number"),
        ("detector.sigma", math.nan, "config.detector.sigma must be a finite number"),
        ("data.batch_size", 0, "data.batch_size and checkpoint_every must be at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_any_work(quick, tmp_path, key, value, sentence):
    section, name = key.split(".")
    quick[section][name] = value
    refuse(quick, tmp_path / "run", sentence)


def test_what_would_fail_after_the_fit_is_said_before(quick, tmp_path):
    quick.threshold.name = "extreme_value"
    refuse(quick, tmp_path / "run", "extreme_value fits a tail to at least 10 scores .* got 0 of 1; hold out more")
    quick.threshold.name = "quantile"
    quick.evaluate.save_maps = True
    quick.data.crop = 24
    refuse(quick, tmp_path / "run", "evaluate.save_maps needs data.crop=0")


def test_textures_are_looked_for_before_the_fit_and_not_afterwards(tree, tmp_path):
    config = base_config("draem", "folder")
    config.data.update({"root": str(tree), "resize": 32, "batch_size": 2})
    config.detector.textures = str(tmp_path / "nothing")
    refuse(config, tmp_path / "run", "there are no images in .*nothing")
    # a fitted run does without them
    configs.outline_model(configs.resolve(config))


NUMBERS = [
    (name, option)
    for name in sorted(detectors.MODULES)
    for option, default in detectors.options(name).items()
    if isinstance(default, int | float) and not isinstance(default, bool)
]
# the threshold of a component may have any sign
SIGNED = {("anomalydino", "mask_threshold")}


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_no_detector_takes_a_negative_number(name, option, tmp_path):
    config = config_of(name, tmp_path / "nowhere")
    with tiny_networks():
        configs.outline_model(configs.resolve(config))
        config.detector[option] = type(config.detector[option])(-1)
        if (name, option) in SIGNED:
            configs.outline_model(configs.resolve(config))
            return
        with pytest.raises(UserError, match=option):
            configs.outline_model(configs.resolve(config))
