"""Values of image files: no depth is lost, ranges and channels are said, damage is named."""

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import iadjax
from iadjax import data, progress
from iadjax.data.decode import decode
from iadjax.data.images import likely_range, read_image
from iadjax.data.masks import MaskReader, read_item
from iadjax.data.opening import orientation_of, upright
from iadjax.data.prepared.prepare import prepare
from iadjax.data.prepared.read import Stored
from iadjax.data.transform import Transform
from iadjax.errors import UserError
from tests.data.trees import draw

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (11, 7, 4)).astype(np.uint16)
RAMP = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12)


def chunk(name, contents):
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def filtered(values):
    """The rows of a 16-bit PNG, which take every filter in turn."""
    size, rows = 2 * values.shape[-1], values.astype(">u2").tobytes()
    rows = np.frombuffer(rows, np.uint8).astype(int).reshape(len(values), -1)
    before, out = np.zeros(rows.shape[1], int), b""
    for y, row in enumerate(rows):
        left, corner = (np.concatenate([np.zeros(size, int), each[:-size]]) for each in (row, before))
        near = left + before - corner
        distances = [abs(near - each) for each in (left, before, corner)]
        paeth = np.choose(np.argmin(distances, axis=0), [left, before, corner])
        guess = [0, left, before, (left + before) // 2, paeth][y % 5]
        out += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        before = row
    return out


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def write_png(file, values, after=b"", interlaced=False):
    """A PNG of 16 bits, written from the specification."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    passes = [values[top::down, left::right] for top, left, down, right in ADAM7] if interlaced else [values]
    body = zlib.compress(b"".join(filtered(each) for each in passes if each.size))
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", body[:40]), chunk(b"IDAT", body[40:]), after, chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_bit_of_a_deep_png_is_read(tmp_path, channels, interlaced):
    file, values = tmp_path / "x.png", DEEP[..., :channels]
    write_png(file, values, interlaced=interlaced)
    found = decode(file)
    np.testing.assert_array_equal(found.values, values)
    assert found.values.dtype == np.uint16 and found.white == 65535 and found.alpha == (channels in (2, 4))
    shown = values[..., [0, 0, 0]] if channels < 3 else values[..., :3]
    np.testing.assert_array_equal(read_image(file), shown.astype(np.float32) / np.float32(65535))
    np.testing.assert_array_equal(read_image(Stored("x.png", file.read_bytes)), read_image(file))


def test_a_deep_png_is_turned_and_its_damage_named(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_png(tmp_path / "x.png", DEEP[..., :3], chunk(b"eXIf", exif.tobytes()[6:]))
    assert orientation_of(tmp_path / "x.png") == 6
    np.testing.assert_array_equal(decode(tmp_path / "x.png").values, np.rot90(DEEP[..., :3], -1))
    whole = (tmp_path / "x.png").read_bytes()
    for length in (30, 60, len(whole) // 2):
        (tmp_path / "y.png").write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot read the image .*y.png .*; repair or remove it"):
            read_image(tmp_path / "y.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "x.png").values[..., 0], upright(RAMP, orientation))
    assert orientation_of(tmp_path / "x.png") == orientation


RGB = {"photometric": "rgb"}
CHANNELS = {"photometric": "minisblack", "planarconfig": "contig"}
TIFFS = {
    "RGB, 16 bits": (DEEP[..., :3], RGB, 65535),
    "RGB, 16 bits, deflate": (DEEP[..., :3], {**RGB, "compression": "zlib", "predictor": True}, 65535),
    "RGB, 16 bits, planes": (np.moveaxis(DEEP[..., :3], -1, 0), {**RGB, "planarconfig": "separate"}, 65535),
    "RGBA, 16 bits": (DEEP, RGB, 65535),
    "grey, 16 bits": (DEEP[..., 0], {}, 65535),
    "grey, floats": (DEEP[..., 0] / np.float32(65535), {}, 1),
    "grey, double": (DEEP[..., 0] / np.float64(65535), {}, 1),
    "RGB, floats": (DEEP[..., :3] / np.float32(65535), RGB, 1),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_every_bit_of_a_deep_tiff_is_read(tmp_path, kind):
    values, options, white = TIFFS[kind]
    tifffile.imwrite(tmp_path / "x.tif", values, **options)
    values = np.moveaxis(values, 0, -1) if "planes" in kind else values
    values = np.stack([values] * 3, -1) if values.ndim == 2 else values[..., :3]
    found = read_image(tmp_path / "x.tif")
    assert found.dtype == np.float32 and found.shape == (11, 7, 3)
    np.testing.assert_array_equal(found, values.astype(np.float32) / np.float32(white))


def test_a_tiff_where_zero_is_white_is_inverted(tmp_path):
    for dtype in (np.uint8, np.uint16):
        values = DEEP[..., 0].astype(dtype)
        tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
        np.testing.assert_array_equal(decode(tmp_path / "x.tif").values[..., 0], np.iinfo(dtype).max - values)


def test_a_tiff_of_twelve_bits_has_their_range(tmp_path):
    tags = [(256, 4, 1, 2), (257, 4, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    tags += [(278, 4, 1, 1), (279, 4, 1, 3)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    # 0xFFF and 0x123, packed
    body = b"\xff\xf1\x23\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "x.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + body)
    np.testing.assert_allclose(read_image(tmp_path / "x.tif")[0, :, 0], [1.0, 0x123 / 4095], rtol=1e-6)


@pytest.mark.parametrize("white", [4095, 65535])
def test_a_deep_pnm_has_the_range_that_it_says(tmp_path, white):
    values = np.minimum(DEEP, white)
    for name, some in (("P5", values[..., :1]), ("P6", values[..., :3])):
        head = f"{name}\n# a comment\n7 11\n{white}\n".encode()
        (tmp_path / "x.pnm").write_bytes(head + some.astype(">u2").tobytes())
        found = decode(tmp_path / "x.pnm")
        np.testing.assert_array_equal(found.values, some)
        assert found.white == white
    Image.fromarray(RAMP).save(tmp_path / "x.pgm")
    np.testing.assert_array_equal(read_image(tmp_path / "x.pgm")[..., 1], RAMP)
    (tmp_path / "x.ppm").write_text("P3 1 1 1023\n1 2 3\n")
    with pytest.raises(UserError, match="written as text with more than 8 bits; save it as a binary"):
        read_image(tmp_path / "x.ppm")


@pytest.mark.parametrize(
    ("values", "sentence", "value_range"),
    [
        (np.float32([[0, 255]]), "from 0 to 255, and floats must lie in.*value_range=255,", 255),
        (np.float32([[-0.5, 1]]), "from -0.5 to 1, and floats must", 1),
        (np.float32([[0, 1.02]]), "value_range=1.02,", 1.02),
        (np.int32([[0, 4000]]), "from 0 to 4000, and int32 does not say which value is white.*value_range=4095,", 4095),
        (np.int16([[-3, 900]]), "int16 does not say.*value_range=1023,", 1023),
        (np.uint32([[0, 2**31 + 7]]), "uint32 does not say.*value_range=2.14751e", 2.0**32),
    ],
)
def test_a_range_that_the_type_does_not_say_is_asked_for(tmp_path, values, sentence, value_range):
    tifffile.imwrite(tmp_path / "x.tif", values)
    with pytest.raises(UserError, match=f"x.tif holds values {sentence}" if "from" in sentence else sentence):
        read_image(tmp_path / "x.tif")
    expected = np.clip(values.astype(np.float64) / value_range, 0, 1)
    np.testing.assert_allclose(read_image(tmp_path / "x.tif", value_range)[..., 2], expected, rtol=1e-6)


def test_rounding_is_no_other_range(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.float32([[-1e-6, 1 + 1e-6]]))
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif")[0, :, 0], [0, 1])


def test_a_value_range_is_of_deep_files_alone(tmp_path):
    Image.fromarray(DEEP[..., 0] // 16).save(tmp_path / "deep.png")
    Image.fromarray(RAMP).save(tmp_path / "plain.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png", 4095)[..., 0], (DEEP[..., 0] // 16) / 4095, rtol=1e-6)
    # what lies above is white
    assert read_image(tmp_path / "deep.png", 100).max() == 1.0
    np.testing.assert_array_equal(read_image(tmp_path / "plain.png", 4095)[..., 0], RAMP)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_named_when_it_is_read(tmp_path, bad):
    tifffile.imwrite(tmp_path / "x.tif", np.float32([[0, bad]]))
    for value_range in ("auto", 255):
        with pytest.raises(UserError, match="x.tif holds NaN or infinite values; repair or remove it"):
            read_image(tmp_path / "x.tif", value_range)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("number", [2, 4, 5])
def test_channels_are_chosen_or_asked_for(tmp_path, dtype, number):
    values = RNG.integers(0, 256, (6, 8, number)).astype(dtype)
    options = CHANNELS if number != 4 else {"photometric": "rgb", "extrasamples": ["unspecified"]}
    tifffile.imwrite(tmp_path / "x.tif", values, **options)
    with pytest.raises(UserError, match=f"x.tif has {number} channels, .*; fit with --config.data.channels"):
        read_image(tmp_path / "x.tif")
    unit = values.astype(np.float32) / np.float32(np.iinfo(dtype).max)
    for channels in ((1,), (0, 1, 0), (1, 0, 1)):
        found = read_image(tmp_path / "x.tif", channels=channels)
        assert found.shape == (6, 8, 3)
        expected = unit[..., list(channels)]
        found = found.astype(np.float32) / np.float32(255) if found.dtype == np.uint8 else found
        np.testing.assert_array_equal(found, np.broadcast_to(expected, (6, 8, 3)))
    with pytest.raises(UserError, match=rf"has {number} channels, from 0, and data.channels=\(9,\)"):
        read_image(tmp_path / "x.tif", channels=(9,))


def test_pages_and_frames_are_refused_and_thumbnails_left_aside(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        tiff.write(DEEP[..., :3], photometric="rgb")
        tiff.write(DEEP[::2, ::2, :3], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(decode(tmp_path / "x.tif").values, DEEP[..., :3])
    tifffile.imwrite(tmp_path / "y.tif", np.stack([RAMP] * 3), photometric="minisblack")
    with pytest.raises(UserError, match="y.tif holds 3 pages; save the page that is meant"):
        read_image(tmp_path / "y.tif")
    frames = [Image.fromarray(np.stack([np.roll(RAMP, i, 1)] * 3, -1)) for i in range(3)]
    for name in ("z.png", "z.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
        with pytest.raises(UserError, match=f"{name} is an animation"):
            read_image(tmp_path / name)


def test_transparent_palettes_are_read_without_a_warning(tmp_path):
    picture = Image.fromarray(np.stack([RAMP] * 3, -1)).quantize(8)
    picture.save(tmp_path / "x.png", transparency=bytes([0, 128, 255]))
    colours = np.array(picture.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), colours[np.asarray(picture)])


def test_grey_images_are_resized_as_their_copies_in_rgb(tmp_path):
    for values in (RAMP, DEEP[..., 0]):
        Image.fromarray(values).save(tmp_path / "x.png")
        image = read_image(tmp_path / "x.png")
        assert image.strides[-1] == 0
        for transform in (Transform(5), Transform(6, 5, interpolation="bicubic"), Transform(5, interpolation="lanczos")):
            np.testing.assert_array_equal(transform.image(image), transform.image(np.ascontiguousarray(image)))
        # what goes on to a detector may be written to
        assert Transform(0).resample(image).flags.writeable


def test_the_limit_of_pixels_is_a_key(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.fromarray(RAMP).save(tmp_path / "x.png")
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "deep.png")
    write_png(tmp_path / "rgb.png", DEEP[..., :3])
    tifffile.imwrite(tmp_path / "x.tif", DEEP[..., :3], photometric="rgb")
    for name, size in (("x.png", 96), ("deep.png", 77), ("rgb.png", 77), ("x.tif", 77)):
        read_image(tmp_path / name)
        read_image(tmp_path / name, max_pixels=size)
        read_image(tmp_path / name, max_pixels=0)
        with pytest.raises(UserError, match=f"{name} is .* million pixels, .*; set data.max_pixels={size} or more"):
            read_image(tmp_path / name, max_pixels=size - 1)
    assert MaskReader(0)(tmp_path / "x.png").shape == (8, 12)
    # Pillow's own limit, which others rely on, is as it was
    threads = [threading.Thread(target=read_image, args=(tmp_path / "x.png",)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Image.MAX_IMAGE_PIXELS == 20


@pytest.mark.parametrize(("high", "white"), [(200, 255), (256, 1023), (3900, 4095), (60000, 65535), (1.02, 1.02), (7, 7)])
def test_a_range_is_proposed(high, white):
    assert likely_range(high) == white
    assert likely_range(np.nextafter(70000.123, 1e9)) >= 70000.123


@pytest.mark.parametrize(
    ("key", "values"),
    [("value_range", (0, -1, "high", float("nan"), float("inf"), True)), ("channels", ("x", (0, 1), (-1,), (0.5,), ()))],
)
def test_wrong_keys_are_refused_before_any_work(tree_config, key, values):
    for value in values:
        tree_config.data[key] = value
        with pytest.raises(UserError, match=f"data.{key} must be .*, got "):
            iadjax.config.resolve(tree_config)
        with pytest.raises(UserError, match=f"data.{key} must be .*, got "):
            data.load("folder", root=tree_config.data.root, **{key: value})


def test_the_keys_reach_every_reader(tree_config, tree):
    for part in ("train/good", "test/good", "test/dent"):
        for file in (tree / part).iterdir():
            values = np.asarray(Image.open(file), np.float32)
            file.unlink()
            tifffile.imwrite(file.with_suffix(".tif"), np.dstack([values, values[..., :1]]), **CHANNELS)
    tree_config.data.update({"value_range": "255", "channels": "(2, 1, 0)", "max_pixels": 1600})
    config = iadjax.config.resolve(tree_config)
    assert config["data"]["value_range"] == 255 and config["data"]["channels"] == [2, 1, 0]
    built = iadjax.config.build_data(config)
    transform = iadjax.config.outline_model(config).transform
    for item in built.dataset.test:
        stored = tifffile.imread(item.file)[..., [2, 1, 0]] / np.float32(255)
        np.testing.assert_allclose(built.dataset.read(item)[0], stored, rtol=1e-6)
        np.testing.assert_array_equal(transform.read(item.file), built.dataset.read(item)[0])
    config["data"]["max_pixels"] = 1599
    with pytest.raises(UserError, match="set data.max_pixels=1600"):
        iadjax.config.build_data(config).dataset.read(built.dataset.test[0])


def test_published_and_prepared_data_have_the_same_range(tmp_path):
    draw("mvtec_ad", tmp_path / "raw")
    file = sorted((tmp_path / "raw").rglob("train/good/*.png"))[0]
    Image.fromarray(DEEP[..., 0] // 16).save(file)
    prepare("mvtec_ad", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    for root in ("raw", "out"):
        found = data.load("mvtec_ad", root=str(tmp_path / root), category=file.parents[2].name, value_range=4095)
        image = found.read(found.train[0])[0]
        np.testing.assert_allclose(image[..., 2], (DEEP[..., 0] // 16) / 4095, rtol=1e-6)
        # a copy of few_shot reads it in the same way
        turned = data.read(found, found.train[0]._replace(rotation=90.0, path=f"{found.train[0].path}@90"))[0]
        assert turned.dtype == np.float32 and turned.max() <= 1


@pytest.mark.parametrize("size", [(8, 12), (8, 8)])
@pytest.mark.parametrize("own", [False, True])
def test_a_mask_is_turned_with_its_image(tmp_path, size, own, monkeypatch, capfd):
    monkeypatch.setattr(progress, "_said", set())
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = RAMP[: size[0], : size[1]]
    mask = (stored > 40).astype(np.uint8) * 255
    Image.fromarray(stored).save(tmp_path / "x.jpg", exif=exif, quality=95)
    Image.fromarray(mask).save(tmp_path / "stored.png", **({"exif": exif} if own else {}))
    Image.fromarray(np.rot90(mask, -1)).save(tmp_path / "shown.png")
    item = data.Item("x", "c", 1, "dent", tmp_path / "x.jpg")
    for name in ("stored.png", "shown.png"):
        image, found = read_item(item._replace(mask=tmp_path / name))
        assert image.shape[:2] == found.shape == size[::-1]
        # a square mask without an orientation is taken as drawn on the shown image
        turned = name == "shown.png" or own or size == (8, 12)
        np.testing.assert_array_equal(found, (np.rot90(mask, -1) if turned else mask) > 0)
    lines = capfd.readouterr().err.splitlines()
    said = "fits both ways" if size == (8, 8) else "so it is turned as the image's EXIF says"
    assert len(lines) == (size == (8, 8) or not own) and all(said in line and str(tmp_path) in line for line in lines)


def test_what_is_no_file_is_named(tmp_path):
    os.symlink(tmp_path / "nowhere", tmp_path / "x.png")
    with pytest.raises(UserError, match="cannot read the image .*x.png"):
        read_image(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"")
    with pytest.raises(UserError, match="y.png .not an image.; repair"):
        read_image(tmp_path / "y.png")


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peaks are read as Linux gives them")
def test_the_memory_of_reading_is_bounded_by_the_image(tmp_path):
    # a process of its own, whose memory nothing else has filled
    code = """
import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import reading_memory
for kind in ("rgb8.png", "grey8.png", "grey16.png", "rgb16.png"):
    file = Path(sys.argv[2]) / kind
    size = reading_memory.draw(file, kind, 6)
    print(reading_memory.measure(file)[0] / size)
"""
    folder = Path(__file__).parents[2] / "scripts/benchmarks"
    done = subprocess.run([sys.executable, "-c", code, folder, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # as docs/data.md says
    times = [float(line) for line in done.stdout.splitlines()]
    assert len(times) == 4 and all(0.5 < each < 5 for each in times), times
