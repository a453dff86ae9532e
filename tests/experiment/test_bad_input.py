"""A user's mistakes: one sentence each that names the file or the key."""

import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax import config as configs
from iadjax.errors import UserError


def refuse(config, tmp_path, match):
    with pytest.raises(UserError, match=match):
        run = iadjax.fit(config, tmp_path / "run")
        iadjax.evaluate(run, output=tmp_path / "run")


def test_an_empty_folder(tree_config, tmp_path):
    (tmp_path / "empty").mkdir()
    tree_config.data.root = str(tmp_path / "empty")
    refuse(tree_config, tmp_path, "empty holds no images in the MVTec AD layout")
    assert not (tmp_path / "run").exists()


def test_data_are_looked_at_before_weights_which_may_have_to_be_fetched(tree_config, tmp_path):
    tree_config.data.root = str(tmp_path / "nowhere")
    tree_config.backbone.update({"name": "resnet18", "weights": str(tmp_path / "absent.safetensors")})
    refuse(tree_config, tmp_path, "nowhere")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("patchcore", {"bank_bytes": 1000}, "detector.bank_bytes=1000 holds . patches, fewer than the"),
        ("draem", {}, "draem needs sides that are multiples of 32, got"),
    ],
)
def test_what_a_detector_refuses_at_its_start_leaves_nothing(name, options, sentence, tree, tmp_path):
    config = configs.base_config(name, "folder")
    config.data.update({"root": str(tree), "resize": 40})
    config.detector.update(options)
    config.threshold.holdout = 0.2
    refuse(config, tmp_path, sentence)
    assert not (tmp_path / "run").exists()


def test_no_good_images(tree_config, tree, tmp_path):
    for path in (tree / "train/good").iterdir():
        path.unlink()
    refuse(tree_config, tmp_path, "no good images to fit on: .*train/good")


@pytest.mark.parametrize("content", [b"this is text", None])
def test_a_file_that_is_no_image(tree_config, tree, tmp_path, content):
    victim = tree / "train/good/003.png"
    victim.write_bytes(content or victim.read_bytes()[:200])
    for workers in (0, 2):
        tree_config.data.workers = workers
        with pytest.raises(UserError, match=r"cannot read the image .*003\.png \(.*\); repair or remove it"):
            iadjax.fit(tree_config, tmp_path / f"run{workers}")


def test_a_mask_of_another_size(tree_config, tree, tmp_path):
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(tree / "ground_truth/dent/001_mask.png")
    refuse(tree_config, tmp_path, r"001_mask.png is 40x20 but its image .*001.png is 40x40")


def test_a_mask_without_an_image(tree_config, tree, tmp_path):
    (tree / "test/dent/001.png").unlink()
    refuse(tree_config, tmp_path, "001_mask.png belongs to no image")


def test_images_of_different_sizes(tree_config, tree, tmp_path):
    Image.fromarray(np.zeros((20, 60, 3), np.uint8)).save(tree / "train/good/004.png")
    iadjax.fit(tree_config, tmp_path / "resized")
    tree_config.data.resize = 0
    refuse(tree_config, tmp_path, "images of different sizes in one split: .*set both so that one size comes out")


def test_deep_grey_and_tiny_images_work(tree_config, tree, tmp_path):
    Image.fromarray(np.full((40, 40), 30000, np.uint16)).save(tree / "train/good/002.tiff")
    (tree / "train/good/002.png").unlink()
    Image.fromarray(np.full((1, 1, 3), 90, np.uint8)).save(tree / "test/good/001.png")
    run = iadjax.fit(tree_config, tmp_path / "run")
    iadjax.evaluate(run, output=tmp_path / "run")
    assert len((tmp_path / "run/scores.csv").read_text().splitlines()) == 5


def test_config_mistakes(config):
    def change(**sections):
        changed = config.to_dict()
        for section, values in sections.items():
            changed[section] = {**changed[section], **values}
        return configs.resolve(changed)

    with pytest.raises(UserError, match="no key 'detector.sgima'; did you mean 'sigma'"):
        change(detector={"sgima": 2.0})
    with pytest.raises(UserError, match="config.detector.sigma must be float"):
        change(detector={"sigma": "four"})
    with pytest.raises(UserError, match="config.evaluate.pixel must be bool"):
        change(evaluate={"pixel": 1})
    with pytest.raises(UserError, match="no detector 'patchcor'; did you mean 'patchcore'"):
        change(detector={"name": "patchcor"})
    with pytest.raises(UserError, match=r"data.resize must be one integer or \(height, width\)"):
        change(data={"resize": "(1, 2, 3)"})
    assert change(data={"resize": "(32, 48)"})["data"]["resize"] == [32, 48]
    with pytest.raises(UserError, match="no category 'washr'; did you mean 'washer'"):
        configs.build_data(change(data={"category": "washr"}))
    with pytest.raises(UserError, match="filter_bank has no layer 'layer7'.*valid names: layer1, layer2, layer3"):
        configs.build_model(change(detector={"layers": ["layer7"]}))
    with pytest.raises(UserError, match="threshold.holdout=0.999 leaves none"):
        configs.build_data(change(threshold={"holdout": 0.999}))
    with pytest.raises(UserError, match="no protocol 'supervisd'"):
        configs.build_data(change(protocol={"name": "supervisd"}))


def test_an_unfinished_or_missing_run(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        iadjax.load(tmp_path)
