"""The look at a data set, and the submission for MVTec AD 2."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from iadjax import data
from iadjax.errors import UserError
from iadjax.experiment.submission import categories_missing, write_submission
from iadjax.report.inspection import inspect, summary
from tests.data.trees import SIZE, draw, marks


def test_faults_are_found_and_named(tmp_path):
    root = tmp_path / "raw"
    draw("btad", root)
    # a training image in the test, a training image twice, an empty mask, a mask of another size, and no image at all
    shutil.copy(root / "01/train/ok/0000.bmp", root / "01/test/ok/0009.bmp")
    shutil.copy(root / "03/train/ok/0000.bmp", root / "03/train/ok/0009.bmp")
    marks(root / "01/ground_truth/ko/0000.png", np.zeros(SIZE, np.uint8))
    marks(root / "01/ground_truth/ko/0001.png", np.ones((4, 4), np.uint8))
    (root / "03/test/ok/0001.bmp").write_bytes(b"no image")
    found = inspect(data.load("btad", root=str(root), category="01,03"), tmp_path / "out")
    assert found == json.loads((tmp_path / "out/report.json").read_text())
    assert found["counts"]["01"] == {"train": {"good": 2}, "test": {"good": 3, "ko": 2}}
    assert found["duplicates_across"] == [["01/test/ok/0009.bmp", "01/train/ok/0000.bmp"]]
    assert found["duplicates_within"] == [["03/train/ok/0000.bmp", "03/train/ok/0009.bmp"]]
    assert found["empty_mask"] == ["01/test/ko/0000.bmp"] and found["without_mask"] == []
    assert len(found["problems"]) == 2
    assert "0001.png is 4x4 but its image" in found["problems"][0]
    assert "cannot read the image" in found["problems"][1] and "03/test/ok/0001.bmp" in found["problems"][1]
    assert found["sizes"]["03"] == {"24x20": 6}
    text = summary(found)
    assert "1 groups of equal images in both training and test parts" in text
    assert "01/test/ok/0009.bmp = 01/train/ok/0000.bmp" in text


def test_sheets_outline_the_masks(tree, tmp_path):
    found = inspect(data.load("folder", root=str(tree)), tmp_path / "out")
    assert found["counts"] == {"bolt": {"test": {"dent": 2, "good": 2}, "train": {"good": 6}}}
    sheet = np.asarray(Image.open(tmp_path / "out/bolt.png"))
    green = (sheet == (64, 255, 96)).all(-1)
    # the third of three rows is the defect; its 10 of 40 pixels are a quarter of each picture, with a border of one pixel
    third = sheet.shape[0] * 2 // 3
    assert not green[:third].any() and green[third:].sum() == 2 * 4 * 36
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bolt.png", "report.json"]


def test_sources_without_files_are_looked_at_too(tmp_path):
    found = data.load("synthetic", category="washer")
    small = found._replace(train=found.train[:3], test=found.test[:2] + found.test[-2:])
    report = inspect(small, tmp_path)
    assert report["sizes"] == {"washer": {"256x256": 7}} and report["without_mask"] == report["empty_mask"] == []
    assert report["duplicates_across"] == report["duplicates_within"] == report["problems"] == []


@pytest.fixture
def private_run(tmp_path):
    """A workdir as a run on the private images of MVTec AD 2 leaves it."""
    root, workdir = tmp_path / "raw", tmp_path / "run"
    draw("mvtec_ad_2_private", root)
    workdir.mkdir()
    config = {"data": {"name": "mvtec_ad_2_private", "root": str(root), "category": "vial"}}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "threshold.json").write_text(json.dumps({"value": 0.5}))
    for part in ("test_private", "test_private_mixed"):
        for name in ("000_regular", "001_overexposed"):
            file = workdir / f"maps/vial/{part}/{name}.tiff"
            file.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(file, np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE))
    return workdir


def test_submission_has_the_layout_of_the_server(private_run, tmp_path):
    assert write_submission(private_run, tmp_path / "out") == 4
    for part in ("test_private", "test_private_mixed"):
        for name in ("000_regular", "001_overexposed"):
            scores = tifffile.imread(tmp_path / f"out/anomaly_images/vial/{part}/{name}.tiff")
            decisions = np.asarray(Image.open(tmp_path / f"out/anomaly_images_thresholded/vial/{part}/{name}.png"))
            assert scores.dtype == np.float16 and scores.shape == decisions.shape == SIZE
            assert decisions.dtype == np.uint8 and set(np.unique(decisions)) == {0, 255} and (decisions > 0).mean() == 0.5
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 8
    assert "vial" not in categories_missing(tmp_path / "out") and len(categories_missing(tmp_path / "out")) == 7
    # the threshold of pixels, where there is one
    (private_run / "threshold.json").write_text(json.dumps({"value": 0.5, "pixel_value": 0.75}))
    write_submission(private_run, tmp_path / "out")
    decisions = np.asarray(Image.open(tmp_path / "out/anomaly_images_thresholded/vial/test_private/000_regular.png"))
    assert (decisions > 0).mean() == 0.25
    write_submission(private_run, tmp_path / "out", threshold=2.0)
    assert not np.asarray(Image.open(tmp_path / "out/anomaly_images_thresholded/vial/test_private/000_regular.png")).any()


def test_a_bad_submission_is_refused_in_one_sentence(private_run, tmp_path):
    first = private_run / "maps/vial/test_private/000_regular.tiff"
    good = first.read_bytes()
    tifffile.imwrite(first, np.full(SIZE, 1e6, np.float32))
    with pytest.raises(UserError, match="000_regular.tiff holds scores beyond float16"):
        write_submission(private_run, tmp_path / "out")
    tifffile.imwrite(first, np.zeros((3, 4), np.float32))
    with pytest.raises(UserError, match=r"000_regular.tiff is \(3, 4\), but its image is \(20, 24\)"):
        write_submission(private_run, tmp_path / "out")
    first.unlink()
    with pytest.raises(UserError, match="lacks 1 of 4 maps, like vial/test_private/000_regular.png"):
        write_submission(private_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    first.write_bytes(good)
    (private_run / "threshold.json").unlink()
    with pytest.raises(UserError, match="cannot read .*threshold.json"):
        write_submission(private_run, tmp_path / "out")
    (private_run / "config.json").write_text(json.dumps({"data": {"name": "mtd"}}))
    with pytest.raises(UserError, match="is a run on mtd; fit one with --config.data.name=mvtec_ad_2_private"):
        write_submission(private_run, tmp_path / "out")


def write(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, values, photometric="minisblack" if values.ndim == 2 else "rgb")


@pytest.mark.parametrize("layout", ["mvtec", "categories", "plain"])
def test_a_folder_of_real_life_in_every_layout(tree, tmp_path, layout):
    rng = np.random.default_rng(0)
    for part in ("train/good", "test/good", "test/dent"):
        for file in (tree / part).iterdir():
            file.unlink()
            write(file.with_suffix(".tif"), rng.integers(0, 3900, (40, 40)).astype(np.uint16))
    mask = tree / "ground_truth/dent/000_mask.png"
    Image.fromarray(np.asarray(Image.open(mask)) // 2 + np.uint8(rng.integers(0, 2, (40, 40)))).save(mask)
    (tree / "test/dent/x.heic").write_bytes(b"x")
    (tree / "test/dent/.ipynb_checkpoints").mkdir()
    (tree / "ground_truth/dent/Thumbs.db").write_bytes(b"x")
    options = {"root": str(tree)}
    if layout == "categories":
        options = {"root": str(tree.parent), "category": "all"}
    if layout == "plain":
        options |= {"normal": "train/good", "abnormal": "test/dent", "masks": "ground_truth/dent", "test_fraction": 0.0}
    found = inspect(data.load("folder", **options, mask_threshold=100), tmp_path / "out", [options["root"]])
    prefix = {"mvtec": "test/dent/", "categories": "test/dent/", "plain": ""}[layout]
    assert found["left_out"] == [[f"{prefix}x.heic", "suffix .heic"]]
    assert [path.rpartition("/")[2] for path in found["ignored"]] == ["Thumbs.db", ".ipynb_checkpoints"]
    assert found["problems"] == [] and [path.rpartition("/")[2] for path in found["grey_masks"]] == ["000.tif"]
    (category,) = found["values"]
    assert found["values"][category] == {"uint16 x 1": 8 if layout == "plain" else 10}
    largest = max(int(tifffile.imread(file).max()) for file in (tree / "train/good").iterdir())
    assert found["largest"] == {"uint16 x 1": largest}
    assert found["proposals"] == [
        f"set data.value_range=4095: the largest value in 6 training images of uint16 x 1 is {largest}, and 65535 is white by "
        "its type"
    ]
    text = summary(found)
    for line in ("set data.value_range=4095", "values: uint16 x 1", "1 images whose mask has more", "x.heic: suffix .heic"):
        assert line in text
    assert ("anomalous images alone" in text) == (layout == "plain")
    # the advice works, and is not repeated
    again = inspect(data.load("folder", **options, value_range=4095), tmp_path / "again", value_range=4095)
    assert again["proposals"] == []


def test_ranges_and_nan_of_float_images(tree, tmp_path):
    for i, file in enumerate(sorted((tree / "train/good").iterdir())):
        file.unlink()
        write(file.with_suffix(".tif"), np.full((40, 40, 3), np.nan if i == 0 else 200 + i, np.float32))
    found = inspect(data.load("folder", root=str(tree)), tmp_path / "out")
    assert len(found["problems"]) == 6 and "holds NaN or infinite values" in found["problems"][0]
    assert all("--config.data.value_range=255" in each for each in found["problems"][1:])
    assert found["largest"] == {"float32 x 3": 205.0}
    assert [each.partition(":")[0] for each in found["proposals"]] == ["set data.value_range=255"]
    found = inspect(data.load("folder", root=str(tree), value_range=255), tmp_path / "again", value_range=255)
    assert len(found["problems"]) == 1 and found["values"]["bolt"] == {"float32 x 3": 6, "uint8 x 3": 4}


def test_no_proposal_where_the_range_is_used(tree, tmp_path):
    for i, file in enumerate(sorted((tree / "train/good").iterdir())):
        file.unlink()
        values = np.full((40, 40), 40000, np.uint16) if i % 2 else np.full((40, 40), 0.3, np.float32)
        write(file.with_suffix(".tif"), values)
    assert inspect(data.load("folder", root=str(tree)), tmp_path / "out")["proposals"] == []
