"""What a folder really holds: hidden and system files, other names of normal images, sub-folders, other suffixes."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax import data, progress
from iadjax.data.images import SUFFIXES
from iadjax.data.listing import IGNORED, NORMAL, children, files_below, is_ignored, is_normal
from iadjax.data.sources import published
from iadjax.errors import UserError
from tests.data.trees import draw

RUBBISH = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", ".git")


def image(path, value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(path, format=None if path.suffix else "PNG")
    return path


def rubbish_in(directory):
    """What systems and editors leave in a folder."""
    for name in RUBBISH:
        image(directory / name / "000-checkpoint.png")
        image(directory / name / "good" / "001.png")
    for name in ("._000.png", ".hidden.png", "._x.bmp", "._exp_00.jpg"):
        (directory / name).write_bytes(b"no image")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "ehthumbs.db"):
        (directory / name).write_bytes(b"x")


def everywhere(root):
    """A folder and all folders below it."""
    return [root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]


def facts(dataset):
    return [[item[:6] for item in getattr(dataset, part)] for part in ("train", "validation", "anomalies", "test")]


def test_names_are_case_insensitive():
    assert all(is_ignored(name) for name in (*RUBBISH, *IGNORED, "THUMBS.DB", "._a.png")) and not is_ignored("thumbs.png")
    assert all(is_normal(each) for name in NORMAL for each in (name, name.upper(), name.title(), name.replace("_", "-")))
    assert is_normal("Defect Free") and not is_normal("goods") and not is_normal("not_ok")


def test_the_page_has_the_lists_of_the_code():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    rules = page.partition("### Which files count")[2].partition("###")[0]
    words = {word.lower() for word in re.findall(r"[^\s`|,()]+", rules)}
    assert words >= SUFFIXES | NORMAL | {name for name in IGNORED if " " not in name}


def test_rubbish_is_ignored_in_every_place(tree, capfd):
    before = data.load("folder", root=str(tree))
    plain = {"normal": "train/good", "abnormal": "test/dent", "masks": "ground_truth/dent"}
    also = data.load("folder", root=str(tree), **plain)
    for directory in everywhere(tree):
        rubbish_in(directory)
    found = data.load("folder", root=str(tree))
    assert facts(found) == facts(before) and found.left_out == () and found.categories == before.categories
    assert facts(data.load("folder", root=str(tree), **plain)) == facts(also)
    rubbish_in(tree.parent)
    image(tree.parent / "__MACOSX/train/good/000.png")
    assert data.load("folder", root=str(tree.parent), category="all").categories == ("bolt",)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", sorted(published.MODULES))
def test_rubbish_is_ignored_in_published_data(name, tmp_path):
    _, categories = draw(name, tmp_path)
    before = data.load(name, root=str(tmp_path), category=categories)
    for directory in everywhere(tmp_path):
        rubbish_in(directory)
    found = data.load(name, root=str(tmp_path), category=categories)
    assert facts(found) == facts(before) and found.categories == before.categories


@pytest.mark.parametrize("name", ["ok", "Good", "NORMAL", "defect-free"])
def test_names_of_normal_images(tree, name):
    before = data.load("folder", root=str(tree))
    for part in ("train", "test"):
        (tree / part / "good").rename(tree / part / name)
    shutil.copytree(tree / "test" / name, tree / "ground_truth" / name)
    found = data.load("folder", root=str(tree))
    assert sorted((item.label, item.defect, item.file.name) for item in found.test) == sorted(
        (item.label, item.defect, item.file.name) for item in before.test
    )
    assert {item.path for item in found.train} == {f"train/{name}/{i:03d}.png" for i in range(6)} and found.left_out == ()
    # the parent sees the category too
    assert data.load("folder", root=str(tree.parent)).categories == ("bolt",)


def test_several_normal_folders_are_one_class(tree):
    image(tree / "train/OK/extra.png")
    image(tree / "test/ok/000.png")
    found = data.load("folder", root=str(tree))
    assert len(found.train) == 7 and "train/OK/extra.png" in {item.path for item in found.train}
    assert [item.path for item in found.test if not item.label] == ["test/good/000.png", "test/good/001.png", "test/ok/000.png"]


def test_folders_below_are_read_and_masks_follow(tree):
    for part in ("test", "ground_truth"):
        (tree / part / "dent/left/a").mkdir(parents=True)
    shutil.move(tree / "test/dent/001.png", tree / "test/dent/left/a/000.png")
    shutil.move(tree / "ground_truth/dent/001_mask.png", tree / "ground_truth/dent/left/a/000_mask.png")
    image(tree / "train/good/day 2/000.png")
    (tree / "elsewhere").mkdir()
    image(tree.parent / "far/linked.pgm")
    os.symlink(tree.parent / "far", tree / "train/good/link")
    os.symlink("itself", tree / "train/good/itself")
    # a loop of links ends
    os.symlink(tree / "train/good", tree / "train/good/day 2/loop")
    found = data.load("folder", root=str(tree))
    masks = {item.path: item.mask for item in found.test}
    assert masks["test/dent/left/a/000.png"] == tree / "ground_truth/dent/left/a/000_mask.png"
    assert masks["test/dent/000.png"] == tree / "ground_truth/dent/000_mask.png"
    assert found.left_out == (("train/good/itself", "suffix none"),)
    assert {item.path for item in found.train} >= {"train/good/day 2/000.png", "train/good/link/linked.pgm"}
    (tree / "ground_truth/dent/left/a/000_mask.png").unlink()
    with pytest.raises(UserError, match="left/a/000.png has no mask in .*dent; add left/a/000_mask.png"):
        data.load("folder", root=str(tree))


def test_what_is_left_out_is_counted_and_named(tree, tree_config, monkeypatch, capfd):
    monkeypatch.setattr(progress, "_said", set())
    (tree / "test/dent/a.heic").write_bytes(b"x")
    (tree / "test/dent/b.HEIC").write_bytes(b"x")
    (tree / "test/good/without").write_bytes(b"x")
    image(tree / "test/top.png")
    image(tree / "train/top.png")
    image(tree / "train/dent/000.png")
    image(tree / "Ground_Truth/dent/000.png")
    image(tree / "ground_truth/flat.png")
    (tree / "test/dent/notes.txt").write_text("x")
    found = data.load("folder", root=str(tree))
    assert dict(found.left_out) == {
        "Ground_Truth/dent/000.png": "outside train, test and ground_truth",
        "ground_truth/flat.png": "directly under ground_truth",
        "test/dent/a.heic": "suffix .heic",
        "test/dent/b.HEIC": "suffix .heic",
        "test/good/without": "suffix none",
        "test/top.png": "directly under test",
        "train/dent/000.png": "in train, but in no folder of a normal name",
        "train/top.png": "in train, but in no folder of a normal name",
    }
    config = iadjax.config.resolve(tree_config)
    for _ in range(2):
        iadjax.config.build_data(config)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("data: 8 files or folders are left out (suffix .heic 2, in train, but") and "test/dent" not in line
    image(tree.parent / "nut/images/000.png")
    several = data.load("folder", root=str(tree.parent), category="all")
    assert ("nut", "folder without train/good") in several.left_out
    assert ("nut", "folder without train/good") not in data.load("folder", root=str(tree.parent), category="bolt").left_out


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        (("test",), "there are no test images, so there are no metrics"),
        (("test", "ground_truth"), "there are no test images, so there are no metrics"),
        (("test/dent", "ground_truth"), "the test part holds normal images alone"),
        (("test/good",), "the test part holds anomalous images alone"),
        ((), None),
    ],
)
def test_a_test_part_of_one_class_or_none_is_said(tree, tree_config, lost, sentence, monkeypatch, capfd):
    monkeypatch.setattr(progress, "_said", set())
    for each in lost:
        shutil.rmtree(tree / each)
    if lost == ("test",):
        shutil.rmtree(tree / "ground_truth")
    built = iadjax.config.build_data(iadjax.config.resolve(tree_config))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == bool(sentence) and all(sentence in line for line in lines)
    assert len(built.split.train) == 5 and len(built.split.validation) == 1
    model = iadjax.config.build_model(iadjax.config.resolve(tree_config))
    assert iadjax.config.spec_of(iadjax.config.resolve(tree_config), built, model).num_images == 5


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        ({"name": "zero_shot"}, "zero_shot scores the test images, and folder has none"),
        ({"name": "noisy"}, "noisy takes anomalous test images, and bolt has none"),
        ({"name": "supervised"}, "supervised learns from anomalous images, and folder has none"),
        ({"name": "few_shot", "num_shots": 2}, None),
        ({"name": "unsupervised"}, None),
    ],
)
def test_protocols_without_test_images(tree, protocol, sentence):
    for each in ("test", "ground_truth"):
        shutil.rmtree(tree / each)
    found = data.load("folder", root=str(tree))
    options = {key: value for key, value in protocol.items() if key != "name"}
    if sentence:
        with pytest.raises(UserError, match=sentence):
            data.split(found, protocol["name"], 0.2, 0, **options)
    else:
        assert data.split(found, protocol["name"], 0.2, 0, **options).test == ()


def test_plain_directories_of_good_images_alone(tree):
    found = data.load("folder", root=str(tree / "train/good"), normal=".", test_fraction=0.0)
    assert len(found.train) == 6 and found.test == () and not found.has_masks and found.categories == ("good",)
    with pytest.raises(UserError, match="for its own 6 images, if they are normal, set --config.data.normal=."):
        data.load("folder", root=str(tree / "train/good"))
    with pytest.raises(UserError, match="holds train and test, not normal images alone; give it with --config.data.root"):
        data.load("folder", normal=str(tree))
    with pytest.raises(UserError, match="share images; give three different folders"):
        data.load("folder", root=str(tree), normal="train/good", abnormal="train/good")


def test_folders_of_defects_within_the_normal_one(tree):
    root = tree / "train/good"
    shutil.copytree(tree / "test/dent", root / "bad/dent")
    shutil.copytree(tree / "ground_truth/dent", root / "masks/dent")
    image(root / "bad/top.gif")
    found = data.load("folder", root=str(root), normal=".", abnormal="bad", masks="masks", test_fraction=0.0)
    assert len(found.train) == 6 and [item.path for item in found.test] == ["abnormal/dent/000.png", "abnormal/dent/001.png"]
    assert found.test[0].mask == root / "masks/dent/000_mask.png" and ("top.gif", "suffix .gif") in found.left_out


def test_same_names_with_other_suffixes_are_still_refused(tree):
    for name in ("test/dent/000.BMP", "test/good/000.jpg"):
        file = image(tree / name)
        with pytest.raises(UserError, match="differ in their suffix alone"):
            data.load("folder", root=str(tree))
        file.unlink()


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dent"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot list the folder .*dent"):
        data.load("folder", root=str(tree))


def test_maps_and_masks_of_evaluation_ignore_rubbish(tree):
    rubbish_in(tree / "ground_truth")
    assert sorted(children(tree / "ground_truth")) == [tree / "ground_truth/dent"]
    assert [path.name for path in files_below(tree / "ground_truth")] == ["000_mask.png", "001_mask.png"]
    assert len(iadjax.metrics.mapfiles.Folder(tree / "ground_truth", "mask").files) == 2
