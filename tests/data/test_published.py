"""Every published data set from its own layout: one small tree each, read directly and in its prepared form."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import iadjax
from iadjax import data
from iadjax.config import base_config, build_data, resolve
from iadjax.data.prepared import read as prepared
from iadjax.data.prepared import records
from iadjax.data.prepared.prepare import describe, differences, prepare
from iadjax.data.sources import published as builders
from iadjax.data.sources.published.common import PARTS, count
from iadjax.data.transform import Transform
from iadjax.errors import UserError
from iadjax.experiment import record
from tests.data.trees import SIZE, draw

NAMES = sorted(builders.MODULES)
WITHOUT_MASKS = ("dtd", "elpv", "mvtec_ad_2_private")
SPLITS = ("train", "validation", "anomalies", "test")


@pytest.fixture(params=NAMES)
def case(request, tmp_path):
    """(name, root, truth, categories) of a data set."""
    root = tmp_path / "published"
    root.mkdir()
    return (request.param, root, *draw(request.param, root))


def flat(dataset):
    return {part: [(*item[:4],) for item in getattr(dataset, part)] for part in SPLITS}


def test_index_and_masks(case):
    name, root, truth, categories = case
    found = data.load(name, root=str(root), category=categories)
    assert found.name == name and ",".join(sorted(found.categories)) == categories
    items = {item.path: (part, item) for part in SPLITS for item in getattr(found, part)}
    assert len(items) == sum(len(getattr(found, part)) for part in SPLITS)
    assert set(items) == set(truth)
    for path, (part, item) in items.items():
        expected = truth[path]
        assert (part, item.category, item.label, item.defect) == expected[:4], path
        image, mask = found.read(item)
        assert image.shape == (*SIZE, 3) and mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, np.zeros(SIZE) if expected.mask is None else expected.mask, path)
        assert (item.mask is not None) == (expected.mask is not None)
    assert found.has_masks == (name not in WITHOUT_MASKS)


def test_the_order_of_files_does_not_matter(case, monkeypatch):
    name, root, _, categories = case
    before = data.load(name, root=str(root), category=categories)
    iterdir, glob = Path.iterdir, Path.glob
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(iterdir(self))))
    monkeypatch.setattr(Path, "glob", lambda self, pattern: reversed(list(glob(self, pattern))))
    again = data.load(name, root=str(root), category=categories)
    assert all(getattr(before, part) == getattr(again, part) for part in SPLITS)


def test_one_category_is_part_of_all(case):
    name, root, truth, categories = case
    first = categories.split(",")[0]
    found = data.load(name, root=str(root), category=first)
    assert found.categories == (first,)
    assert {path for path, each in truth.items() if each.category == first} == {
        item.path for part in SPLITS for item in getattr(found, part)
    }


def test_a_wrong_root_is_named(case, tmp_path):
    name, root, _, categories = case
    with pytest.raises(UserError, match=f"{name} needs --config.data.root=DIR, the folder that holds"):
        data.load(name, category=categories)
    with pytest.raises(UserError, match=f"there is no folder {root}/nowhere; give the one of {name}"):
        data.load(name, root=str(root / "nowhere"), category=categories)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / 'empty'}"):
        data.load(name, root=str(tmp_path / "empty"), category=categories)


def test_a_missing_mask_is_named(case):
    name, root, _, categories = case
    found = data.load(name, root=str(root), category=categories)
    marked = [item for part in SPLITS for item in getattr(found, part) if item.mask]
    assert bool(marked) == (name not in WITHOUT_MASKS)
    if not marked:
        return
    lost = marked[0].masks or (marked[0].mask,)
    for file in lost:
        file.unlink()
    if name == "dagm":
        # there the mask makes the label; the counts tell
        assert len(data.load(name, root=str(root), category=categories).train) == len(found.train) + 1
        return
    with pytest.raises(UserError) as error:
        data.load(name, root=str(root), category=categories)
    assert lost[0].stem in str(error.value) or marked[0].file.name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_prepared_data_give_the_same_batches(case, tmp_path):
    name, root, _, categories = case
    direct = data.load(name, root=str(root), category=categories)
    folder, notes = prepare(name, root, tmp_path / "prepared", allow_incomplete=True)
    assert folder == tmp_path / "prepared" / name / "1.0.0" and all(note.partition("/")[0] for note in notes)
    for place in (folder, tmp_path / "prepared"):
        stored = data.load(name, root=str(place), category=categories)
        assert flat(stored) == flat(direct) and stored[:2] == direct[:2] and stored.has_masks == direct.has_masks
    for part in SPLITS:
        ours, theirs = getattr(direct, part), getattr(stored, part)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.file.read_bytes() == other.file.read_bytes()
            assert [each.read_bytes() for each in mine.masks] == [each.read_bytes() for each in other.masks]
            assert (mine.mask is None) == (other.mask is None)
            assert str(mine.file).endswith(str(other.file)) and hash(other) is not None
        inputs = ("xyz",) if direct.points else ()
        for left, right in zip(
            data.batches(direct, ours, Transform(16), 3, shuffle=(0, 0, 1), inputs=inputs),
            data.batches(stored, theirs, Transform(16), 3, shuffle=(0, 0, 1), inputs=inputs),
            strict=True,
        ):
            assert left.extra.keys() == right.extra.keys() == set(inputs)
            for key in ("image", "mask", "label", "category", "index", "valid"):
                np.testing.assert_array_equal(getattr(left, key), getattr(right, key))
            for key in left.extra:
                np.testing.assert_array_equal(left.extra[key], right.extra[key])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="there is no published data set 'btda'; did you mean 'btad'"):
        describe("btda")
    with pytest.raises(UserError, match="there is no data set 'viza'; did you mean 'visa'"):
        data.load("viza", root="x")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_everything(name):
    text = describe(name)
    for key in ("Layout:", "Masks:", "Split:", "Licence:", "Citation:", "Address:", "Unchecked:"):
        assert f"\n{key} " in text
    module = builders.module(name)
    assert tuple(module.COUNTS[name]) == module.CATEGORIES
    assert all(set(row) <= set(PARTS) for row in module.COUNTS[name].values())
    assert all(category in text for category in module.CATEGORIES)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mvtec_ad", {"train": 3629, "test_good": 467, "test_anomalous": 1258}),
        ("mvtec_loco", {"train": 1772, "validation": 304, "test_good": 575, "test_anomalous": 993}),
        ("mvtec_3d_ad", {"train": 2656, "validation": 294, "test_good": 249, "test_anomalous": 948}),
        ("mvtec_ad_2", {"train": 2528, "validation": 302, "test_good": 379, "test_anomalous": 705}),
        ("mvtec_ad_2_private", {"train": 2528, "validation": 302, "test_good": 2 * 2045}),
        ("visa", {"train": 8659, "test_good": 962, "test_anomalous": 1200}),
        ("visa_2cls_highshot", {"train": 5773, "anomalies": 720, "test_good": 3848, "test_anomalous": 480}),
        ("visa_2cls_fewshot", {"train": 1924, "anomalies": 240, "test_good": 7697, "test_anomalous": 960}),
        ("btad", {"train": 1799, "test_good": 451, "test_anomalous": 290}),
        ("mpdd", {"train": 888, "test_good": 176, "test_anomalous": 282}),
        ("kolektor_sdd", {"train": 277, "test_good": 70, "test_anomalous": 52}),
        ("kolektor_sdd2", {"train": 2085, "anomalies": 246, "test_good": 894, "test_anomalous": 110}),
        ("dagm", {"train": 7004, "anomalies": 1046, "test_good": 6996, "test_anomalous": 1054}),
        ("mtd", {"train": 761, "test_good": 191, "test_anomalous": 392}),
        ("eyecandies", {"train": 10000, "validation": 1000, "test_good": 250, "test_anomalous": 250}),
        ("dtd", {"train": 5640}),
    ],
)
def test_counts_add_up_to_the_published_totals(name, published):
    rows = builders.module(name).COUNTS[name].values()
    assert {part: sum(row.get(part, 0) for row in rows) for part in PARTS} == dict.fromkeys(PARTS, 0) | published


def test_the_docs_list_every_name():
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    assert [name for name in data.NAMES if f"`{name}`" not in text] == []


def test_visa_splits_hold_the_same_images():
    counts = builders.module("visa").COUNTS
    for category, row in counts["visa"].items():
        for name in ("visa_2cls_highshot", "visa_2cls_fewshot"):
            split = counts[name][category]
            assert split["train"] + split["test_good"] == row["train"] + row["test_good"]
            assert split["anomalies"] + split["test_anomalous"] == row["test_anomalous"] == 100


def test_sums_are_compared_where_counts_by_category_are_not_known(tmp_path, monkeypatch):
    module = builders.module("real_iad")
    assert sum(module.TOTALS["real_iad"].values()) == 151050
    assert "sum: train 36465, test_good 63256, test_anomalous 51329" in describe("real_iad")
    _, categories = draw("real_iad", tmp_path)
    monkeypatch.setitem(module.COUNTS, "real_iad", {category: {} for category in categories.split(",")})
    with pytest.raises(UserError, match=r"not real_iad as published: sum/train: \d of 36465 images; sum/test_good: \d of"):
        prepare("real_iad", tmp_path, tmp_path / "out")


def test_elpv_counts_every_cell():
    rows = builders.module("elpv").COUNTS["elpv"].values()
    assert sum(sum(row.values()) for row in rows) == 2624


def test_absent_categories_are_all_named(tmp_path):
    draw("mvtec_ad", tmp_path)
    with pytest.raises(
        UserError, match=r"lacks 13 of 15 categories of mvtec_ad: cable, capsule, .*, zipper \(there is no folder"
    ):
        data.load("mvtec_ad", root=str(tmp_path), category="all")
    with pytest.raises(UserError, match="there is no category 'bottel'; did you mean 'bottle'"):
        data.load("mvtec_ad", root=str(tmp_path), category="bottel")


def test_a_mask_of_another_size_is_named(tmp_path):
    from tests.data.trees import marks

    draw("btad", tmp_path)
    marks(tmp_path / "01/ground_truth/ko/0001.png", np.ones((5, 6), np.uint8))
    found = data.load("btad", root=str(tmp_path), category="01")
    with pytest.raises(UserError, match="0001.png is 6x5 but its image .*0001.bmp is 24x20"):
        found.read(found.test[-1])


def test_listed_files_that_are_missing_are_counted(tmp_path):
    draw("visa", tmp_path)
    (tmp_path / "candle/Data/Images/Normal/0000.JPG").unlink()
    (tmp_path / "candle/Data/Images/Normal/0003.JPG").unlink()
    with pytest.raises(UserError, match="2 files that the split of visa lists are missing, like .*0000.JPG, .*0003.JPG"):
        data.load("visa", root=str(tmp_path), category="candle")
    (tmp_path / "split_csv/1cls.csv").write_text("object,image\ncandle,x\n")
    with pytest.raises(UserError, match="lacks the columns split, label, mask"):
        data.load("visa", root=str(tmp_path), category="candle")


def test_broken_annotations_are_named(tmp_path):
    draw("deeppcb", tmp_path / "a")
    (tmp_path / "a/PCBData/group00041/00041_not/00041000.txt").write_text("1 2 3 4 7\n")
    with pytest.raises(UserError, match="cannot read the boxes .*00041000.txt"):
        data.load("deeppcb", root=str(tmp_path / "a"))
    draw("neu_det", tmp_path / "b")
    file = tmp_path / "b/ANNOTATIONS/crazing_1.xml"
    file.write_text(file.read_text().replace("<xmax>9", "<xmax>99"))
    found = data.load("neu_det", root=str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"crazing_1.xml marks the box \(3, 0, 99, 6\) in an image of 24x20"):
        found.read(found.test[0])


def test_loco_defects_saturate_as_configured(tmp_path):
    draw("mvtec_loco", tmp_path)
    found = data.load("mvtec_loco", root=str(tmp_path), category="pushpins")
    folder, _ = prepare("mvtec_loco", tmp_path, tmp_path / "prepared", allow_incomplete=True)
    stored = data.load("mvtec_loco", root=str(folder), category="pushpins")
    for dataset in (found, stored):
        good, two = dataset.test[0], next(item for item in dataset.test if len(item.masks) == 2)
        assert dataset.defects(good) == []
        # both areas are 35: the first saturates at 10 pixels, the second at half of its area
        assert [(int(each.mask.sum()), each.saturation) for each in dataset.defects(two)] == [(35, 10), (35, 17.5)]


def test_points_are_in_millimetres(tmp_path):
    draw("mvtec_3d_ad", tmp_path)
    found = data.load("mvtec_3d_ad", root=str(tmp_path), category="tire")
    xyz = found.points(found.train[0])
    assert xyz.shape == (*SIZE, 3) and xyz.dtype == np.float32
    assert not xyz[0].any() and xyz[1:].min() >= 300 and xyz.max() <= 700
    small = Transform((10, 12)).points(xyz)
    # every point of the small one is a point of the large one: nothing is blended with what was not measured
    assert small.shape == (10, 12, 3)
    assert {tuple(point) for point in small.reshape(-1, 3)} <= {tuple(point) for point in xyz.reshape(-1, 3)}
    batch = next(data.batches(found, found.train, Transform(16, 8), 3, inputs=("xyz",)))
    assert batch.extra["xyz"].shape == (3, 8, 8, 3) and not batch.extra["xyz"][2].any()


def test_eyecandies_points_project_back_to_their_pixels(tmp_path):
    draw("eyecandies", tmp_path)
    found = data.load("eyecandies", root=str(tmp_path), category="Lollipop")
    xyz = found.points(found.test[0])
    assert xyz[..., 2].min() > 500 and xyz[..., 2].max() < 1500
    column = 711.11 * xyz[..., 0] / xyz[..., 2] + SIZE[1] / 2
    row = 711.11 * xyz[..., 1] / xyz[..., 2] + SIZE[0] / 2
    np.testing.assert_allclose(column, np.arange(SIZE[1])[None].repeat(SIZE[0], 0), atol=1e-3)
    np.testing.assert_allclose(row, np.arange(SIZE[0])[:, None].repeat(SIZE[1], 1), atol=1e-3)


def test_a_published_validation_part_is_the_held_out_part(tmp_path):
    draw("mvtec_loco", tmp_path)
    found = data.load("mvtec_loco", root=str(tmp_path), category="breakfast_box,pushpins")
    split = data.split(found, "unsupervised", 0.1, seed=3)
    assert split.validation == found.validation and split.train == found.train and len(split.validation) == 4
    assert data.split(found, "unsupervised", 0.0, seed=3).validation == ()
    assert data.split(found, "few_shot", 0.1, seed=3, num_shots=1).validation == found.validation


def test_published_anomalies_are_those_of_the_supervised_protocol(tmp_path):
    draw("visa_2cls_fewshot", tmp_path)
    found = data.load("visa_2cls_fewshot", root=str(tmp_path), category="candle,pcb1")
    assert not any(item.label for item in data.split(found, "unsupervised", 0.1, seed=0).train)
    split = data.split(found, "supervised", 0.1, seed=0, num_anomalies=1)
    assert {item for item in split.train if item.label} == set(found.anomalies) and split.test == found.test
    hard = data.split(found, "supervised", 0.1, seed=0, num_anomalies=1, defect="bent,melt")
    assert not any(item.label for item in hard.test) and sum(item.label for item in hard.train) == 2


def test_a_set_without_normal_images_cannot_be_fitted(tmp_path):
    draw("neu_det", tmp_path)
    with pytest.raises(UserError, match="neu_det has no normal training images"):
        data.split(data.load("neu_det", root=str(tmp_path)), "unsupervised", 0.1, seed=0)


def test_a_run_on_prepared_data(tmp_path):
    draw("btad", tmp_path / "raw")
    prepare("btad", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    config = base_config("patchcore", "btad")
    config.data.update({"root": str(tmp_path / "raw"), "category": "01", "resize": 32, "batch_size": 2, "workers": 0})
    config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.5})
    config.threshold.holdout = 0.5
    published = record.data_hashes(build_data(resolve(config)))["data"]
    config.data.root = str(tmp_path / "out")
    run = iadjax.fit(config, tmp_path / "run")
    table = iadjax.evaluate(run)
    assert table["01"]["images"] == 4 and 0 <= table["01"]["pixel_auroc"] <= 1
    # the same images, wherever they come from
    assert json.loads((tmp_path / "run/run.json").read_text())["fingerprint_parts"]["data"] == published


def test_prepare_names_what_is_missing(tmp_path):
    draw("mvtec_ad", tmp_path / "raw")
    output = tmp_path / "out"
    with pytest.raises(UserError) as error:
        prepare("mvtec_ad", tmp_path / "raw", output)
    text = str(error.value)
    for part in ("bottle/train: 3 of 209 images", "grid/test_anomalous: 2 of 57 images", "zipper: left out, because"):
        assert part in text
    assert not output.exists()
    folder, found = prepare("mvtec_ad", tmp_path / "raw", output, allow_incomplete=True)
    assert prepared._read_index(folder)["notes"]["differences"] == found and len(found) == 6 + 13
    assert [path.name for path in output.iterdir()] == ["mvtec_ad"]
    with pytest.raises(UserError, match="1.0.0 exists; remove it"):
        prepare("mvtec_ad", tmp_path / "raw", output, allow_incomplete=True)
    with pytest.raises(UserError, match="holds the prepared data set 'mvtec_ad', not 'mpdd'; set --config.data.name=mvtec_ad"):
        data.load("mpdd", root=str(folder), category="all")
    with pytest.raises(UserError, match="there is no category 'zipper'"):
        data.load("mvtec_ad", root=str(folder), category="zipper")


def test_shards_keep_the_order(tmp_path, monkeypatch):
    draw("mvtec_loco", tmp_path / "raw")
    monkeypatch.setattr(records, "_SHARD_BYTES", 3000)
    folder, _ = prepare("mvtec_loco", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    assert len(list(folder.glob("*test.array_record*"))) > 3
    direct = data.load("mvtec_loco", root=str(tmp_path / "raw"), category="breakfast_box,pushpins")
    stored = data.load("mvtec_loco", root=str(folder), category="all")
    assert flat(stored) == flat(direct)
    for mine, other in zip(direct.test, stored.test, strict=True):
        assert mine.file.read_bytes() == other.file.read_bytes() and len(mine.masks) == len(other.masks)


def test_a_failed_preparation_leaves_nothing(tmp_path, monkeypatch):
    draw("mvtec_ad", tmp_path / "raw")
    read_bytes = Path.read_bytes

    def broken(self):
        if self.name == "001_mask.png":
            raise OSError(5, "Input/output error", str(self))
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(UserError, match="cannot prepare mvtec_ad"):
        prepare("mvtec_ad", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    assert not list((tmp_path / "out").iterdir())


def test_damaged_records_are_refused(tmp_path):
    draw("mtd", tmp_path / "raw")
    folder, _ = prepare("mtd", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    index = folder / "items.json"
    index.write_text(index.read_text().replace("MT_Crack/Imgs/exp1_num_00.jpg", "MT_Crack/Imgs/other.jpg"))
    found = data.load("mtd", root=str(folder))
    with pytest.raises(UserError, match="is damaged: record 4 is MT_Crack/Imgs/exp1_num_00.jpg, not MT_Crack/Imgs/other.jpg"):
        found.read(found.test[4])


def test_tensorflow_is_never_imported(tmp_path):
    draw("btad", tmp_path / "raw")
    code = f"""
import sys
from iadjax import data
from iadjax.data.prepared.prepare import prepare
assert "tensorflow_datasets" not in sys.modules
folder, _ = prepare("btad", {str(tmp_path / "raw")!r}, {str(tmp_path / "out")!r}, allow_incomplete=True)
found = data.load("btad", root=str(folder), category="all")
assert len(list(data.batches(found, found.test, data.Transform(16), 4))) == 2
assert "tensorflow_datasets" in sys.modules
print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False"


def test_real_magnetic_tiles(shared, tmp_path):
    root = shared / "data/magnetic_tile"
    found = data.load("mtd", root=str(root))
    assert differences(found, "mtd") == []
    counts = count(found)["magnetic_tile"]
    assert counts["train"] + counts["test_good"] == 952 and counts["test_anomalous"] == 392
    assert differences(data.load("mtd_300", root=str(root)), "mtd_300") == []
    folder, notes = prepare("mtd_300", root, tmp_path)
    stored = data.load("mtd_300", root=str(folder))
    assert notes == [] and flat(stored) == flat(data.load("mtd_300", root=str(root)))
    for item in stored.test[90:110]:
        twin = next(each for each in found.test if each.path == item.path)
        for ours, theirs in zip(found.read(twin), stored.read(item), strict=True):
            np.testing.assert_array_equal(ours, theirs)
