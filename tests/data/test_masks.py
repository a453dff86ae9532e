"""One rule for masks: of every source, of evaluation from files, and said once."""

import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

import iadjax
from iadjax import data, metrics
from iadjax.data.masks import MaskReader, read_coded_mask, read_item
from iadjax.data.prepared.read import Stored
from iadjax.errors import UserError

SHAPE = np.zeros((6, 8), bool)
SHAPE[2:4, 1:5] = True
TWO = "of two values"
GREY = "grey levels"


def palette():
    picture = Image.fromarray(SHAPE.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


def grey(dtype, white):
    # the edge is soft: 3/8 of white outside, 5/8 inside
    soft = SHAPE * (white * 5 // 8)
    soft[4, 1:5] = white * 3 // 8
    soft[2, 2] = white
    return soft.astype(dtype)


def save(file, array):
    if isinstance(array, Image.Image):
        array.save(file)
    elif file.suffix == ".npy":
        np.save(file, array)
    elif file.suffix == ".tiff":
        tifffile.imwrite(file, array)
    else:
        Image.fromarray(array).save(file)


KINDS = {
    "0 and 255": ("png", np.uint8(255) * SHAPE, ""),
    "0 and 1": ("png", np.uint8(1) * SHAPE, TWO),
    "0 and 7": ("bmp", np.uint8(7) * SHAPE, TWO),
    "16 bits, 0 and 255": ("png", np.uint16(255) * SHAPE, TWO),
    "16 bits, 0 and 1": ("tiff", np.uint16(1) * SHAPE, TWO),
    "16 bits, 0 and 65535": ("png", np.uint16(65535) * SHAPE, ""),
    "bool": ("png", SHAPE, ""),
    "bool array": ("npy", SHAPE, ""),
    "float array": ("npy", SHAPE[..., None].astype(np.float64), TWO),
    "float TIFF": ("tiff", SHAPE.astype(np.float64), TWO),
    "palette": ("png", palette(), TWO),
    "RGB, 16 bits": ("tiff", np.stack([np.uint16(1) * SHAPE] * 3, -1), TWO),
    "RGB": ("png", np.stack([np.uint8(200) * SHAPE, 0 * SHAPE, 0 * SHAPE], -1).astype(np.uint8), TWO),
    "RGBA": ("png", np.stack([*[np.uint8(255) * SHAPE] * 3, np.full(SHAPE.shape, 255, np.uint8)], -1), ""),
    "grey levels": ("png", grey(np.uint8, 255), GREY),
    "16 bits, grey levels": ("png", grey(np.uint16, 65535), GREY),
    "float grey levels": ("npy", grey(np.float32, 8) / 8, GREY),
    "JPEG": ("jpg", np.kron(np.uint8(255) * SHAPE, np.ones((7, 7), np.uint8)), GREY),
    "nothing": ("png", np.zeros((6, 8), np.uint8), ""),
    "everything": ("png", np.ones((6, 8), np.uint8), TWO),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_is_read_by_one_rule_that_is_said_once(kind, tmp_path, capfd):
    suffix, array, rule = KINDS[kind]
    file = tmp_path / f"mask.{suffix}"
    save(file, array)
    read = MaskReader()
    found = [read(file), read(Stored(file.name, file.read_bytes))]
    expected = {"nothing": 0 * SHAPE, "everything": SHAPE | True, "JPEG": np.kron(SHAPE, np.ones((7, 7)))}.get(kind, SHAPE)
    for each in found:
        assert each.dtype == np.uint8
        np.testing.assert_array_equal(each, expected)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == bool(rule)
    assert not rule or (lines[0].startswith("masks: ") and rule in lines[0] and str(file) in lines[0])


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.arange(48, dtype=np.uint8).reshape(6, 8) % 6, "holds several small values up to 5, so what they mark is not known"),
        (np.arange(48).reshape(6, 8) % 6 * 40.0, "holds several values up to 200"),
        (np.float32([[0, np.nan], [1, 1]]), "NaN"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"must be one 2-D array, got \(2, 3, 4, 5\)"),
    ],
)
def test_a_mask_that_cannot_be_understood_is_refused(array, sentence, tmp_path):
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(UserError, match=f"mask.npy {sentence}" if sentence != "NaN" else "mask.npy holds NaN"):
        MaskReader()(tmp_path / "mask.npy")


def test_a_file_that_is_no_image_is_named(tmp_path):
    for name in ("a.png", "a.tiff", "a.npy"):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(UserError, match=f"cannot read the mask .*{name} .*; repair or remove it"):
            MaskReader()(tmp_path / name)


def test_a_threshold_of_the_user(tmp_path, capfd):
    save(tmp_path / "m.png", np.uint8([[0, 1, 2, 3]]))
    np.testing.assert_array_equal(MaskReader(0)(tmp_path / "m.png"), [[0, 1, 1, 1]])
    np.testing.assert_array_equal(MaskReader("1")(tmp_path / "m.png"), [[0, 0, 1, 1]])
    assert "marks where a value is above 1" in capfd.readouterr().err
    with pytest.raises(UserError, match="data.mask_threshold must be a number or 'auto', got 'high'"):
        MaskReader("high")


def test_threads_say_it_once(tmp_path, capfd):
    save(tmp_path / "m.png", np.uint8(1) * SHAPE)
    read = MaskReader()
    threads = [threading.Thread(target=read, args=(tmp_path / "m.png",)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_coded_masks_mark_what_is_not_zero(tmp_path):
    save(tmp_path / "m.png", np.uint8([[0, 1, 2, 3]]))
    np.testing.assert_array_equal(read_coded_mask(tmp_path / "m.png"), [[0, 1, 1, 1]])
    # any colour, and not an opaque alpha channel
    save(tmp_path / "c.png", np.uint8([[[0, 0, 0, 255], [0, 9, 0, 255]]]))
    np.testing.assert_array_equal(read_coded_mask(tmp_path / "c.png"), [[0, 1]])


@pytest.mark.parametrize("kind", ["0 and 1", "16 bits, 0 and 255", "palette"])
def test_a_run_and_its_files_see_the_same_defects(kind, tree, tmp_path, capfd):
    # the masks of the tree, as 40 x 40 files of the kind
    big = np.zeros((40, 40), np.uint8)
    big[10:20, 10:20] = 1
    for i in range(2):
        file = tree / f"ground_truth/dent/{i:03d}_mask.png"
        if kind == "palette":
            picture = Image.fromarray(big, "P")
            picture.putpalette([0, 0, 0, 128, 0, 0])
            picture.save(file)
        else:
            save(file, big if kind == "0 and 1" else big.astype(np.uint16) * 255)
    found = data.load("folder", root=str(tree))
    for item in found.test:
        assert found.read(item)[1].sum() == (100 if item.label else 0)
        (tmp_path / "maps" / item.path).parent.mkdir(parents=True, exist_ok=True)
        np.save((tmp_path / "maps" / item.path).with_suffix(".npy"), found.read(item)[1].astype(np.float32))
    capfd.readouterr()
    table = metrics.evaluate_files(maps=tmp_path / "maps", masks=tree / "ground_truth")
    assert table["mean"]["pixel_auroc"] == 1.0 and table["mean"]["pixel_ap"] == 1.0
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_the_key_reaches_the_reader(tree_config, tree):
    save(tree / "ground_truth/dent/001_mask.png", (np.arange(1600, dtype=np.uint8) % 4).reshape(40, 40))
    built = iadjax.config.build_data(iadjax.config.resolve(tree_config))
    broken = next(item for item in built.dataset.test if item.path.endswith("dent/001.png"))
    with pytest.raises(UserError, match="several small values up to 3.*set data.mask_threshold"):
        built.dataset.read(broken)
    tree_config.data.mask_threshold = 2
    built = iadjax.config.build_data(iadjax.config.resolve(tree_config))
    assert built.dataset.read(broken)[1].sum() == 400
    assert read_item(broken, MaskReader(1))[1].sum() == 800
