"""Sources, reading, resizing, protocols and the loader."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from iadjax import data
from iadjax.data.images import read_image
from iadjax.data.sources.synthetic import CATEGORIES, DEFECTIVE, GOOD, TRAIN
from iadjax.data.transform import Transform, geometry
from iadjax.errors import UserError

RAMP = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
def test_formats(tmp_path, suffix):
    file = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
    Image.fromarray(np.stack([RAMP, RAMP // 2, RAMP // 3], -1)).save(file, **options)
    image = read_image(file)
    assert image.shape == (8, 12, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[..., 0].astype(int), RAMP, atol=12 if suffix == "jpg" else 0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_modes_become_rgb(tmp_path, mode):
    Image.fromarray(np.stack([RAMP] * 3, -1)).convert(mode).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert image.shape == (8, 12, 3) and image.dtype == np.uint8
    if mode in ("L", "RGBA", "LA"):
        np.testing.assert_array_equal(image[..., 0], RAMP)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = (RAMP.astype(np.uint16) * 600) + 7
    Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[..., 1], deep / 65535, rtol=1e-6)


def test_exif_orientation(tmp_path):
    picture = Image.fromarray(np.stack([RAMP] * 3, -1))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to show
    picture.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png")[..., 0], np.rot90(RAMP, -1))


@pytest.mark.parametrize(
    ("resize", "crop", "resized", "size"),
    [
        (256, 0, (256, 256), (256, 256)),
        (256, 224, (256, 384), (224, 224)),
        ((100, 200), 0, (100, 200), (100, 200)),
        (0, 0, (400, 600), (400, 600)),
        (0, (128, 64), (400, 600), (128, 64)),
    ],
)
def test_geometry(resize, crop, resized, size):
    found = geometry(400, 600, resize, crop)
    assert found.resized == resized and found.size == size


@pytest.mark.parametrize(
    ("shape", "options", "resized", "size"),
    [
        # AnomalyDINO: shorter side 448, multiples of 14
        ((1024, 1024), {"resize": 448, "side": "shorter", "multiple": 14}, (448, 448), (448, 448)),
        ((1168, 1284), {"resize": 448, "side": "shorter", "multiple": 14}, (448, 492), (448, 490)),
        # 1358.4 is cut, as torchvision does
        ((500, 1516), {"resize": 448, "side": "shorter"}, (448, 1358), (448, 1358)),
        ((400, 600), {"resize": 256, "crop": 224, "side": "both"}, (256, 256), (224, 224)),
        ((101, 75), {"resize": 0, "multiple": 14}, (101, 75), (98, 70)),
    ],
)
def test_sides_and_multiples(shape, options, resized, size):
    found = geometry(*shape, **options)
    assert found.resized == resized and found.size == size


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resize": 256, "crop": 224, "multiple": 14}, "data.crop=224 and data.crop_multiple=14 exclude each other"),
        ({"resize": (256, 300), "side": "shorter"}, "data.resize_side=shorter needs one integer"),
        ({"resize": 8, "multiple": 14}, "data.crop_multiple=14 leaves nothing of the resized image 8x8"),
    ],
)
def test_what_excludes_each_other_is_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        geometry(100, 120, **options)


def test_a_multiple_is_cropped_from_the_top_left_and_maps_cover_the_original():
    transform = Transform(45, side="shorter", interpolation="bicubic", multiple=14)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((60, 45), Image.Resampling.BICUBIC))[:42, :56]
    np.testing.assert_array_equal(transform.resample(image), expected)
    sharp = np.asarray(Image.fromarray(image).resize((45, 45), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(Transform(45, interpolation="lanczos").resample(image), sharp)
    # deeper images: the same filter, kept in [0, 1]
    deep = transform.image(image.astype(np.float32) / 255)
    assert deep.min() >= 0 and deep.max() <= 1
    np.testing.assert_allclose(deep, expected / 255, atol=0.02)
    mask = (image[..., 0] > 127).astype(np.uint8)
    assert transform.mask(mask).shape == (42, 56) and transform.visible(mask).shape == (90, 120)
    seen = np.arange(42 * 56, dtype=np.float32).reshape(42, 56)
    whole = transform.map_back(seen, 90, 120)
    assert whole.shape == (90, 120) and transform.origin(90, 120) == (0, 0)
    # positions stay: two pixels of the original for each of the map
    np.testing.assert_allclose(whole[20:60:2, 20:80:2], seen[10:30, 10:40] - 14.25, atol=1e-2)
    np.testing.assert_array_equal(whole[-1, :100], whole[-3, :100])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match="data.crop 300x300 is larger than the resized image 256x256"):
        geometry(256, 256, 256, 300)


def test_maps_return_to_their_place():
    transform = Transform(64, 48)
    original = np.zeros((200, 300), np.uint8)
    original[90:110, 140:160] = 1
    seen = transform.mask(original)
    assert seen.shape == (48, 48)
    back = transform.map_back(seen.astype(np.float32), 200, 300)
    left, top = transform.origin(200, 300)
    assert back.shape == transform.visible(original).shape
    row, column = ndimage.center_of_mass(back)
    assert abs(row + top - 99.5) < 2 and abs(column + left - 149.5) < 2


def test_folder_layout(tree):
    found = data.load("folder", root=str(tree))
    assert found.categories == ("bolt",) and len(found.train) == 6 and len(found.test) == 4 and found.has_masks
    assert [item.label for item in found.test] == [1, 1, 0, 0]
    image, mask = found.read(found.test[0])
    assert image.shape == (40, 40, 3) and mask.sum() == 100
    # the parent holds categories
    assert data.load("folder", root=str(tree.parent), category="bolt").train[0].path == "train/good/000.png"
    with pytest.raises(UserError, match="no category 'bolts'; did you mean 'bolt'"):
        data.load("folder", root=str(tree.parent), category="bolts")


def test_plain_directories(tree):
    options = {"normal": "train/good", "abnormal": "test/dent", "masks": "ground_truth/dent", "test_fraction": 0.5}
    found = data.load("folder", root=str(tree), **options)
    again = data.load("folder", root=str(tree), **options)
    assert found.train == again.train and len(found.train) == 3 and len(found.test) == 5 and found.has_masks
    assert {item.path for item in found.train} != {
        item.path for item in data.load("folder", root=str(tree), seed=1, **options).train
    }


def test_mtd_layout(tmp_path):
    rng = np.random.default_rng(0)
    for kind, count in (("Free", 11), ("Blowhole", 2), ("Break", 1), ("Crack", 1), ("Fray", 1), ("Uneven", 1)):
        folder = tmp_path / f"MT_{kind}/Imgs"
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (9, 7), np.uint8)).save(folder / f"exp_{i:02d}.jpg")
            # nearly binary, as the published masks are
            Image.fromarray(np.pad(np.full((3, 3), 250, np.uint8), ((3, 3), (2, 2)))).save(folder / f"exp_{i:02d}.png")
    found = data.load("mtd", root=str(tmp_path))
    # sorted by name, every fifth of 11 is for test: 0, 5, 10
    assert len(found.train) == 8 and [item.path[-6:-4] for item in found.test if not item.label] == ["00", "05", "10"]
    assert sum(item.label for item in found.test) == 6 and found.read(found.test[-1])[1].sum() == 9
    with pytest.raises(UserError, match="MT_Free/Imgs is missing or holds no .jpg"):
        data.load("mtd", root=str(tmp_path / "MT_Free"))


def test_real_mtd_counts(shared):
    found = data.load("mtd", root=str(shared / "data/magnetic_tile"))
    assert len(found.train) == 761 and len(found.test) == 191 + 392
    subset = data.load("mtd_300", root=str(shared / "data/magnetic_tile"))
    assert len(subset.train) == 200 and len(subset.test) == 200


def test_synthetic_has_categories_defects_and_masks():
    found = data.load("synthetic", category="all")
    assert len(found.categories) == 6 and len(found.train) == 6 * TRAIN
    for category in found.categories:
        kinds = CATEGORIES[category][1]
        assert len(kinds) >= 3
        assert sum(item.category == category for item in found.test) == GOOD + DEFECTIVE * len(kinds)
        clean, none = found.read(next(item for item in found.train if item.category == category))
        assert clean.shape == (256, 256, 3) and not none.any()
    for item in found.test[:: DEFECTIVE // 2]:
        image, mask = found.read(item)
        assert mask.any() == bool(item.label), item.path
        # the same path gives the same bytes
        again = data.load("synthetic", category=item.category).read(item)
        np.testing.assert_array_equal(again[0], image)


def test_synthetic_masks_are_where_the_image_changed():
    from iadjax.data.sources.synthetic.textures import FABRIC

    draw, kinds = FABRIC
    for kind, spoil in kinds.items():
        rng = np.random.default_rng(5)
        image, where = draw(rng)
        spoiled, mask = spoil(rng, image.copy(), where)
        changed = np.abs(spoiled - image).max(-1) > 0.02
        assert (changed & mask).sum() > 0.6 * mask.sum(), kind
        assert (changed & ~ndimage.binary_dilation(mask, iterations=3)).sum() == 0, kind


def test_protocol_holds_out_normals():
    found = data.load("synthetic", category="wood")
    split = data.split(found, "unsupervised", 0.1, seed=3)
    assert len(split.validation) == 6 and len(split.train) == TRAIN - 6
    assert set(split.train) | set(split.validation) == set(found.train) and not set(split.train) & set(split.validation)
    assert not set(split.test) & set(found.train)
    assert split == data.split(found, "unsupervised", 0.1, seed=3) != data.split(found, "unsupervised", 0.1, seed=4)
    assert data.split(found, "unsupervised", 0.0, seed=3).validation == ()


def collected(found, items, size, **options):
    rows = []
    for batch in data.batches(found, items, Transform(16), size, **options):
        assert batch.image.shape == (size, 16, 16, 3) and batch.image.dtype == np.float32
        rows += [(int(i), batch.image[r]) for r, i in enumerate(batch.index) if batch.valid[r]]
        assert np.all(batch.index[~batch.valid] == -1)
    return rows


def test_loader_order_is_a_function_of_its_seed():
    found = data.load("synthetic", category="fabric")
    items = found.train[:11]
    plain = collected(found, items, 4)
    assert [index for index, _ in plain] == list(range(11))
    shuffled = collected(found, items, 4, shuffle=(0, 0, 1))
    order = [index for index, _ in shuffled]
    assert sorted(order) == list(range(11)) and order != list(range(11))
    for options in ({"workers": 0}, {"workers": 3}):
        assert [i for i, _ in collected(found, items, 4, shuffle=(0, 0, 1), **options)] == order
    # the order does not depend on the batch size, and a later start continues it
    assert [i for i, _ in collected(found, items, 3, shuffle=(0, 0, 1))] == order
    assert [i for i, _ in collected(found, items, 4, shuffle=(0, 0, 1), start=1)] == order[4:]
    assert [i for i, _ in collected(found, items, 4, shuffle=(0, 0, 2))] != order


def test_loader_shards_by_process():
    found = data.load("synthetic", category="fabric")
    items = found.train[:8]
    parts = [
        [int(i) for batch in data.batches(found, items, Transform(16), 4, process=(p, 2)) for i in batch.index[batch.valid]]
        for p in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(8)) and len(parts[0]) == len(parts[1]) == 4


def test_maps_are_smoothed_at_the_original_resolution():
    anomaly_map = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    plain = Transform(16).map_back(anomaly_map, 40, 60)
    smoothed = Transform(16, map_sigma=2.0).map_back(anomaly_map, 40, 60)
    np.testing.assert_allclose(smoothed, ndimage.gaussian_filter(plain.astype(np.float64), 2.0), rtol=1e-5)
