"""Drawn folders of images: a data set says what a slow reader of these lines says, or ends in a `UserError`; nothing else."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from iadjax import data
from iadjax.data.remarks import remarks
from iadjax.errors import UserError
from tests.data.test_decode import write_png

# as docs/data.md has them
READ = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".pbm")
NOTES = (".txt", ".json")
HIDDEN = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin")
NORMAL = ("good", "ok", "normal", "nominal", "healthy", "pass", "passed", "defect_free", "no_defect", "non_defective")

TRAIN = ("good", "good", "good", "OK", "Defect Free", "dent", ".ipynb_checkpoints", "")
TEST = ("good", "Normal", "dent", "dent", "裂け目", "<b>&amp;'\"", "__MACOSX", "")
BELOW = ("", "", "left", "left", "day 2/é", ".hidden", "@eaDir", "x.png")
SIZES = ((1, 1), (5, 7), (8, 8), (2, 40))


class Drawn(NamedTuple):
    """A file: where it lies, what is in it, and the seed of its values."""

    path: str
    kind: str
    size: tuple[int, int]
    seed: int


def colours(values):
    return np.broadcast_to(values[..., None] if values.ndim == 2 else values[..., :3], (*values.shape[:2], 3))


def contents(drawn):
    """(what is written, the image in [0, 1] or an error's name by value range "auto", the same by the range 1000)."""
    rng = np.random.default_rng(drawn.seed)
    grey, rgb = rng.integers(0, 256, drawn.size, np.uint8), rng.integers(0, 256, (*drawn.size, 3), np.uint8)
    deep = rng.integers(0, 65536, (*drawn.size, 3)).astype(np.uint16)
    shown = {
        "grey": (grey, grey / 255),
        "RGB": (rgb, rgb / 255),
        "RGBA": (np.dstack([rgb, grey]), rgb / 255),
        "bool": (grey > 99, (grey > 99) / 1.0),
        "palette": (grey // 64, np.array([[0, 0, 0], [9, 8, 7], [255, 0, 3], [1, 2, 200]])[grey // 64] / 255),
        "grey, 16 bits": (deep[..., 0], deep[..., 0] / 65535, deep[..., 0] / 1000),
        "RGB, 16 bits": (deep, deep / 65535, deep / 1000),
        "floats": (grey / np.float32(255), grey / 255, grey / 255 / 1000),
        "floats to 255": (np.maximum(grey, 2).astype(np.float32), "refused", np.maximum(grey, 2) / 1000),
        "int32": (deep[..., 0].astype(np.int32) - 9, "refused", (deep[..., 0].astype(float) - 9) / 1000),
        "NaN": (np.full(drawn.size, np.nan, np.float32), "refused", "refused"),
        "two channels": (np.dstack([grey, grey]), "refused", "refused"),
        "damaged": (rgb, "anything", "anything"),
        "text": (b"no image", "refused", "refused"),
        "nothing": (b"", "refused", "refused"),
    }[drawn.kind]
    return (*shown, shown[1])[:3]


IN_TIFF = ("RGB, 16 bits", "floats", "floats to 255", "int32", "NaN", "two channels")
BYTES = ("text", "nothing")


def write(file, drawn):
    """Writes a file as its suffix asks; kinds that the format does not hold are other kinds. Returns what it holds now."""
    suffix, kind = file.suffix.lower(), drawn.kind
    if kind not in BYTES and suffix in (".tif", ".tiff"):
        kind = {"palette": "grey", "bool": "grey"}.get(kind, kind)
    elif kind not in BYTES and suffix not in (".png",):
        kind = {"damaged": "damaged"}.get(kind, "RGB" if suffix == ".ppm" else "grey")
    elif kind in IN_TIFF and kind != "RGB, 16 bits":
        kind = "grey, 16 bits"
    drawn = drawn._replace(kind=kind)
    values = contents(drawn)[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind in BYTES:
        file.write_bytes(values)
    elif suffix in (".tif", ".tiff"):
        how = "minisblack" if values.ndim == 2 or values.shape[-1] == 2 else "rgb"
        tifffile.imwrite(file, values, photometric=how, planarconfig="contig" if values.ndim == 3 else None)
    elif kind == "RGB, 16 bits":
        write_png(file, values)
    else:
        picture = Image.fromarray(values)
        if kind == "palette":
            picture = Image.fromarray(values, "P")
            picture.putpalette([0, 0, 0, 9, 8, 7, 255, 0, 3, 1, 2, 200])
        options = {"lossless": True} if suffix == ".webp" else {}
        form = {".bmp": "BMP", ".webp": "WEBP", ".pgm": "PPM", ".ppm": "PPM", ".jpg": "JPEG"}.get(suffix, "PNG")
        picture.convert("RGB" if form == "WEBP" else picture.mode).save(file, format=form, **options)
    if kind == "damaged":
        whole = file.read_bytes()
        file.write_bytes(whole[: max(9, drawn.seed % len(whole))])
    return drawn


MASKS = ("white", "ones", "16 bits", "grey levels", "codes", "other size", "nothing marked", "text")


def write_mask(file, kind, size, seed):
    """Writes a mask; returns what it marks, or an error's name."""
    marked = np.random.default_rng(seed).integers(0, 2, size).astype(bool)
    marked[0, 0] = True
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "text":
        file.write_bytes(b"no mask")
        return "refused"
    if kind == "other size":
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(file, format="PNG")
        return "refused"
    values = {
        "white": marked * np.uint8(255),
        "ones": marked * np.uint8(1),
        "16 bits": marked * np.uint16(255),
        "grey levels": np.where(marked, 200, 90).astype(np.uint8),
        "codes": np.arange(marked.size).reshape(size).astype(np.uint8) % 5,
        "nothing marked": np.zeros(size, np.uint8),
    }[kind]
    if kind == "grey levels":
        values[0, 0] = 255
    Image.fromarray(values).save(file, format="PNG")
    if kind == "nothing marked":
        return np.zeros(size, bool)
    if kind == "codes":
        # one or two values are no codes
        return values > 0 if len(np.unique(values)) <= 2 else "refused"
    if kind == "grey levels" and np.isin(values, (0, 255)).all():
        return values > 0
    return marked


names = st.text("aé漢 <&'\"%.", min_size=1, max_size=3)
stems = st.one_of(st.sampled_from(["000"] * 4 + ["001", "000_mask", "a.b", "Thumbs"]), names)
suffixes = st.sampled_from([".png"] * 5 + [".tif"] * 4 + [".PNG", ".TIFF", ".bmp", ".webp", ".pgm", ".gif", ".txt", ""])
kinds = st.sampled_from(
    ["grey", "RGB", "RGBA", "bool", "palette", "grey, 16 bits", "RGB, 16 bits", "floats"] * 4
    + ["floats to 255", "int32", "NaN", "two channels", "damaged", "text", "nothing"]
)


@st.composite
def files(draw, part):
    folders = draw(st.sampled_from(TRAIN if part == "train" else TEST)), draw(st.sampled_from(BELOW))
    name = (draw(stems) + draw(suffixes)).rstrip(".") or "..."
    path = "/".join(each for each in (part, *folders, name) if each)
    return Drawn(path, draw(kinds), draw(st.sampled_from(SIZES)), draw(st.integers(0, 10**6)))


def some(part, most):
    return st.lists(files(part), max_size=most, unique_by=lambda each: each.path)


@st.composite
def trees(draw):
    train = [Drawn("train/good/x.png", "RGB", (8, 8), 0)] * draw(st.sampled_from([1, 1, 1, 0]))
    found = train + draw(some("train", 3)) + draw(some("test", 6))
    # each image has a mask or none, mostly all of them
    present = draw(st.sampled_from(["all", "all", "some", "none"]))
    masks = [draw(st.sampled_from(MASKS[:4] * 3 + MASKS)) if present != "some" or draw(st.booleans()) else "" for _ in found]
    return found, masks if present != "none" else [""] * len(found), draw(st.sampled_from(["auto", 1000]))


def hidden(path):
    return any(part.startswith(".") or part.lower() in HIDDEN for part in path.split("/"))


def normal(name):
    return name.lower().replace("-", "_").replace(" ", "_") in NORMAL


def suffix_of(path):
    return Path(path).suffix.lower()


def stem_of(path):
    return path[: len(path) - len(suffix_of(path))]


def expected(written, marks):
    """{path: (label, defect, mask or None)} of train and of test, and what is left out; None where it must be refused."""
    seen = [path for path in [*written, *marks] if not hidden(path)]
    classes = {}
    for path in seen:
        top, folder, *rest = path.split("/")
        if rest:
            classes.setdefault((top, folder), []).append("/".join(rest))
    images = {key: [each for each in inside if suffix_of(each) in READ] for key, inside in classes.items()}
    for (top, folder), inside in images.items():
        read = normal(folder) if top == "train" else top == "test" or ("test", folder) in classes
        if read and len({stem_of(each) for each in inside}) < len(inside):
            return None
    train = {f"train/{f}/{each}": (0, "good", None) for (top, f), some in images.items() if top == "train" and normal(f)
             for each in some}  # fmt: skip
    if not train:
        return None
    test, used = {}, set()
    for (top, folder), inside in images.items():
        if top != "test":
            continue
        own = {}
        for mask in [] if normal(folder) else images.get(("ground_truth", folder), []):
            known = {stem_of(each) for each in inside}
            stem = stem_of(mask)
            stem = stem if stem in known else stem.removesuffix("_mask")
            if stem not in known or stem in own:
                return None
            own[stem] = f"ground_truth/{folder}/{mask}"
        if own and len(own) < len(inside):
            return None
        used |= set(own.values())
        for each in inside:
            label = int(not normal(folder))
            test[f"test/{folder}/{each}"] = (label, folder if label else "good", own.get(stem_of(each)))
    if any(top == "ground_truth" and ("test", f) not in classes and not normal(f) for top, f in classes):
        return None
    used |= {path for path in seen if path.startswith("ground_truth/") and normal(path.split("/")[1])}
    rest = [path for path in seen if path not in {*train, *test, *used} and suffix_of(path) not in NOTES]
    return train, test, set(rest)


def check(tree):
    found, masks, value_range = tree
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "part <1>"
        root.mkdir()
        written, marks = {}, {}
        for drawn, mask in zip(found, masks, strict=True):
            file = root / drawn.path
            above = [str(parent.relative_to(root)) for parent in file.parents if parent != root and root in parent.parents]
            if drawn.path in written or file.is_dir() or any(each in written for each in above):
                continue
            written[drawn.path] = write(file, drawn)
            parts = drawn.path.split("/")
            if mask and parts[0] == "test" and len(parts) > 2 and suffix_of(drawn.path) in READ and not normal(parts[1]):
                path = "/".join(["ground_truth", *parts[1:-1], stem_of(parts[-1]) + "_mask.png"])
                if path not in marks and not hidden(path):
                    marks[path] = write_mask(root / path, mask, drawn.size, drawn.seed)
        truth = expected(written, marks)
        if truth is None:
            with pytest.raises(UserError) as error:
                data.load("folder", root=str(root))
            assert len(str(error.value).splitlines()) == 1
            return "refused"
        dataset = data.load("folder", root=str(root), value_range=value_range)
        assert all(len(each.splitlines()) == 1 for each in remarks(dataset))
        for items, known in ((dataset.train, truth[0]), (dataset.test, truth[1])):
            facts = [(item.label, item.defect, item.mask and item.mask.relative_to(root).as_posix()) for item in items]
            assert dict(zip((item.path for item in items), facts, strict=True)) == known
            assert len(items) == len(known)
        assert {path for path, _ in dataset.left_out} == truth[2]
        for item in (*dataset.train, *dataset.test):
            assert item.file == root / item.path and item.category == "part <1>"
            compare(dataset, item, written, marks, value_range)
        return "read"


def compare(dataset, item, written, marks, value_range):
    drawn = written[item.path]
    image = contents(drawn)[1 if value_range == "auto" else 2]
    mask = None if item.mask is None else marks[str(item.mask.relative_to(item.file.parents[item.path.count("/")]).as_posix())]
    try:
        pixels, marked = data.read(dataset, item)
    except UserError as error:
        assert isinstance(image, str) or isinstance(mask, str), f"{item.path}: {error}"
        assert len(str(error).splitlines()) == 1
        assert any(file and file.name in str(error) for file in (item.file, item.mask))
        return
    assert not isinstance(mask, str) and (not isinstance(image, str) or image == "anything"), f"{item.path} is read"
    if not isinstance(image, str):
        unit = pixels / 255 if pixels.dtype == np.uint8 else pixels
        np.testing.assert_allclose(unit, np.clip(colours(image), 0, 1), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(marked, np.zeros(marked.shape) if mask is None else mask)


OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


# a damaged file may warn before it ends
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=50, **OPTIONS)
@given(trees())
def test_fifty_folders(tree):
    check(tree)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=1000, **OPTIONS)
@given(trees())
def test_a_thousand_folders(tree):
    check(tree)
