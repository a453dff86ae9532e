"""Metrics from files: this library's runs, submissions in MVTec's layout, and everything that can be wrong with them."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import roc_auc_score

from iadjax import metrics
from iadjax.errors import UserError
from iadjax.metrics.mapfiles import Folder

HEADER = "path,category,label,score"


def save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, array)
    elif file.suffix in (".tif", ".tiff"):
        tifffile.imwrite(file, array)
    else:
        Image.fromarray(array).save(file)
    return file


@pytest.fixture
def submission(tmp_path):
    """Two categories: a table, maps as float32 TIFF by the path of the image, masks as the data set has them."""
    rng = np.random.default_rng(0)
    lines, truth = [HEADER], {}
    for category in ("bolt", "cloth"):
        maps, masks, labels, scores = [], [], [], []
        for defect, count in (("good", 4), ("cut", 4)):
            for i in range(count):
                path = f"{category}/test/{defect}/{i:03}.png"
                mask = np.zeros((20, 24), np.uint8)
                if defect != "good":
                    mask[3:9, 4 + i : 12] = 255
                    save(tmp_path / "data" / category / "ground_truth" / defect / f"{i:03}_mask.png", mask)
                each = (rng.normal(size=mask.shape) + 2 * (mask > 0)).astype(np.float32)
                save((tmp_path / "maps" / path).with_suffix(".tiff"), each)
                maps.append(each)
                masks.append(mask)
                labels.append(int(defect != "good"))
                scores.append(float(rng.normal() + labels[-1]))
                lines.append(f"{path},{category},{labels[-1]},{scores[-1]:.9g}")
        truth[category] = maps, masks, labels, scores
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, truth


def test_a_run_is_recomputed(submission):
    root, truth = submission
    table = metrics.evaluate_files(root / "scores.csv", root / "maps", root / "data")
    for category, (maps, masks, labels, scores) in truth.items():
        row = table[category]
        assert row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        expected = metrics.pixel_metrics(maps, masks)
        assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-12)
        assert row["resolution"] == "original" and row["images"] == len(labels)
    assert table["mean"]["aupro"] == pytest.approx((table["bolt"]["aupro"] + table["cloth"]["aupro"]) / 2)
    assert list(table) == ["bolt", "cloth", "mean"] and table["mean"]["images"] == 16


def test_scores_alone_and_maps_alone(submission):
    root, truth = submission
    image = metrics.evaluate_files(root / "scores.csv")
    assert np.isnan(image["bolt"]["aupro"]) and image["mean"]["resolution"] == "none"
    pixel = metrics.evaluate_files(maps=root / "maps", masks=root / "data")
    assert np.isnan(pixel["mean"]["image_auroc"])
    assert pixel["bolt"]["pixel_ap"] == pytest.approx(metrics.pixel_metrics(*truth["bolt"][:2])["pixel_ap"], abs=1e-12)


def test_resized_protocol_and_smaller_maps(submission):
    root, truth = submission
    small = metrics.evaluate_files(root / "scores.csv", root / "maps", root / "data", eval_size=8)
    assert small["bolt"]["resolution"] == "8x8"
    maps, masks = truth["bolt"][:2]
    maps = [np.asarray(Image.fromarray(each).resize((8, 8), Image.Resampling.BILINEAR)) for each in maps]
    masks = [np.asarray(Image.fromarray(each).resize((8, 8), Image.Resampling.NEAREST)) for each in masks]
    assert small["bolt"]["aupro"] == pytest.approx(metrics.aupro(maps, masks), abs=1e-12)
    # maps at half the size go up to the masks' size; images without a mask have the size of the others
    for file in (root / "maps").rglob("*.tiff"):
        tifffile.imwrite(file, np.asarray(Image.fromarray(tifffile.imread(file)).resize((12, 10))))
    table = metrics.evaluate_files(root / "scores.csv", root / "maps", root / "data")
    assert table["bolt"]["resolution"] == "original" and table["bolt"]["pixel_auroc"] > 0.5


def test_constant_halves_survive_the_resize(tmp_path):
    # 2 x 2 to 4 x 4, bilinear: rows 0, 1/4, 3/4, 1; the mask is the lower half
    save(tmp_path / "maps/good/0.npy", np.zeros((2, 2), np.float32))
    save(tmp_path / "maps/bad/1.npy", np.array([[0, 0], [1, 1]], np.float32))
    save(tmp_path / "masks/bad/1.png", np.repeat(np.uint8([0, 0, 255, 255]), 4).reshape(4, 4))
    row = metrics.evaluate_files(maps=tmp_path / "maps", masks=tmp_path / "masks")["maps"]
    assert row["pixel_auroc"] == row["pixel_ap"] == row["aupro"] == 1


def test_folders_of_normal_images_have_the_names_that_all_readers_know(tmp_path):
    save(tmp_path / "maps/No-Defect/0.npy", np.zeros((4, 4), np.float32))
    save(tmp_path / "maps/bad/1.npy", np.repeat(np.float32([0, 0, 1, 1]), 4).reshape(4, 4))
    save(tmp_path / "masks/bad/1.png", np.repeat(np.uint8([0, 0, 255, 255]), 4).reshape(4, 4))
    assert metrics.evaluate_files(maps=tmp_path / "maps", masks=tmp_path / "masks")["maps"]["pixel_auroc"] == 1
    (tmp_path / "maps/No-Defect").rename(tmp_path / "maps/scratch")
    with pytest.raises(UserError, match="there is no mask of scratch"):
        metrics.evaluate_files(maps=tmp_path / "maps", masks=tmp_path / "masks")


@pytest.mark.parametrize("suffix, kind", [(".npy", np.float64), (".png", np.uint8), (".tif", np.float32), (".png", np.uint16)])
def test_formats_give_the_same(tmp_path, suffix, kind):
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 200, (3, 6, 6))
    masks = np.zeros((3, 6, 6), bool)
    masks[1, 2:4, 2:4] = masks[2, 0, :3] = True
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        each = each.astype(kind)
        save(tmp_path / "anomaly_maps" / f"{i}{suffix}", each[None, :, :, None] if suffix == ".npy" else each)
        save(tmp_path / "masks" / f"{i}.png", np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1) if i == 1 else mask)
    row = metrics.evaluate_files(maps=tmp_path / "anomaly_maps", masks=tmp_path / "masks")["anomaly_maps"]
    expected = metrics.pixel_metrics(maps, masks)
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def break_missing_map(root):
    (root / "maps/bolt/test/cut/001.tiff").unlink()
    return "no map of bolt/test/cut/001.png"


def break_missing_mask(root):
    (root / "data/bolt/ground_truth/cut/002_mask.png").unlink()
    return "no mask of bolt/test/cut/002.png"


def break_two_maps(root):
    save(root / "maps/bolt/test/cut/001.npy", np.zeros((20, 24)))
    return "are maps of one image"


def break_flat_maps(root):
    save(root / "maps/000.npy", np.zeros((20, 24)))
    for file in (root / "maps/bolt/test").rglob("000.tiff"):
        file.unlink()
    return "fits both"


def break_map_shape(root):
    save(root / "maps/bolt/test/cut/001.tiff", np.zeros((2, 20, 24), np.float32))
    return "001.tiff must be one 2-D array"


def break_map_nan(root):
    save(root / "maps/bolt/test/cut/001.tiff", np.full((20, 24), np.nan, np.float32))
    return "001.tiff holds 480 NaN or infinite"


def break_map_bytes(root):
    (root / "maps/bolt/test/cut/001.tiff").write_bytes(b"no map")
    return "cannot read .*001.tiff"


def break_mask_bytes(root):
    (root / "data/bolt/ground_truth/cut/001_mask.png").write_bytes(b"no mask")
    return "cannot read .*001_mask.png"


def break_mask_of_good(root):
    save(root / "data/bolt/ground_truth/good/001_mask.png", np.full((20, 24), 255, np.uint8))
    return "has the label 0"


def break_mask_values(root):
    save(root / "data/bolt/ground_truth/cut/001_mask.png", np.arange(480, dtype=np.uint8).reshape(20, 24) % 3)
    return "several small values"


def break_sizes(root):
    save(root / "data/bolt/ground_truth/cut/001_mask.png", np.full((7, 7), 255, np.uint8) * np.eye(7, dtype=np.uint8))
    save(root / "maps/bolt/test/good/001.tiff", np.zeros((5, 5), np.float32))
    return "set eval_size"


def break_table(line):
    def change(root):
        with (root / "scores.csv").open("a") as file:
            file.write(line + "\n")
        return "line 18 of .*scores.csv"

    return change


def break_header(root):
    (root / "scores.csv").write_text("file,score\n")
    return "must begin with the columns"


def break_empty(root):
    (root / "scores.csv").write_text(HEADER + "\n")
    return "holds no scores"


BROKEN = [
    break_missing_map, break_missing_mask, break_two_maps, break_flat_maps, break_map_shape, break_map_nan, break_map_bytes,
    break_mask_bytes, break_mask_of_good, break_mask_values, break_sizes, break_header, break_empty,
    break_table("x.png,bolt,2,0.5"), break_table("x.png,bolt,1,nan"), break_table("x.png,bolt,one,1"),
    break_table("bolt/test/cut/000.png,bolt,1,1"), break_table("x.png,bolt"),
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN)
def test_bad_files_are_named(submission, change):
    root, _ = submission
    message = change(root)
    with pytest.raises(UserError, match=message):
        metrics.evaluate_files(root / "scores.csv", root / "maps", root / "data")


def test_an_ambiguous_map_is_named(tmp_path):
    for folder in ("a", "b"):
        save(tmp_path / "maps" / folder / "0.npy", np.zeros((2, 2)))
    save(tmp_path / "masks/0.png", np.uint8([[0, 255], [0, 0]]))
    (tmp_path / "scores.csv").write_text(f"{HEADER}\n0.png,c,1,0.5\n")
    with pytest.warns(RuntimeWarning), pytest.raises(UserError, match="both fit the image 0.png"):
        metrics.evaluate_files(tmp_path / "scores.csv", tmp_path / "maps", tmp_path / "masks")


def test_arguments(tmp_path):
    with pytest.raises(UserError, match="nothing to evaluate"):
        metrics.evaluate_files()
    with pytest.raises(UserError, match="both maps and masks"):
        metrics.evaluate_files(maps=tmp_path)
    with pytest.raises(UserError, match="no folder of maps"):
        metrics.evaluate_files(maps=tmp_path / "absent", masks=tmp_path)
    with pytest.raises(UserError, match="holds no maps"):
        metrics.evaluate_files(maps=tmp_path, masks=tmp_path)
    with pytest.raises(UserError, match="cannot read the scores"):
        metrics.evaluate_files(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="eval_size"):
        metrics.evaluate_files(maps=tmp_path, masks=tmp_path, eval_size=-1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "jpeg", "tif", "npy"])
def test_masks_of_any_format(tmp_path, suffix):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 32, 32), np.float32)
    masks = np.zeros((3, 32, 32), bool)
    masks[1, 8:16, 8:24] = masks[2, 16:24, :8] = True
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        # results of scripts/predict.py keep the image's suffix
        save(tmp_path / "maps" / f"{i}.png.tiff", each)
        save(tmp_path / "masks" / f"{i}.{suffix}", mask * np.uint8(255))
    (tmp_path / "scores.csv").write_text("path,category,label,score\n0.png,c,0,0\n1.png,c,1,1\n2.png,c,1,1\n")
    row = metrics.evaluate_files(tmp_path / "scores.csv", tmp_path / "maps", tmp_path / "masks")["c"]
    expected = metrics.pixel_metrics(maps, masks)
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def test_two_images_of_one_stem_have_maps_of_their_own(tmp_path):
    for name in ("a.png", "a.jpg"):
        save(tmp_path / "maps" / f"{name}.tiff", np.zeros((2, 2), np.float32))
    folder = Folder(tmp_path / "maps", "map")
    assert [folder.find(name).name for name in ("a.png", "x/a.jpg")] == ["a.png.tiff", "a.jpg.tiff"]
    assert folder.find("a.bmp") is None
