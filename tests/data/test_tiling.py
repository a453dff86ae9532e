"""Tiles: they cover the image, their maps blend without seams, and any detector finds a defect on a seam."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import iadjax
from iadjax.config import base_config
from iadjax.data.tiling import blend, cut, positions
from iadjax.errors import UserError


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    tile=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    overlap=st.floats(0, 0.9),
    seed=st.integers(0, 100),
)
def test_tiles_cover_the_image_and_blend_to_it(size, tile, overlap, seed):
    tile = tuple(min(each) for each in zip(size, tile, strict=True))
    where = positions(size, tile, overlap)
    covered = np.zeros(size, int)
    for top, left in where:
        assert 0 <= top <= size[0] - tile[0] and 0 <= left <= size[1] - tile[1]
        covered[top : top + tile[0], left : left + tile[1]] += 1
    assert covered.min() >= 1
    for axis in (0, 1):
        starts = sorted({position[axis] for position in where})
        # neighbours share at least the overlap, up to the pixel that the even spread rounds away
        assert all(tile[axis] - (b - a) >= round(overlap * tile[axis]) - 1 for a, b in zip(starts, starts[1:], strict=False))
    # tiles of one map blend to that map
    whole = np.random.default_rng(seed).random(size).astype(np.float32)
    parts = [cut(whole, position, tile) for position in where]
    np.testing.assert_allclose(blend(parts, size, tile, overlap), whole, rtol=1e-6)


def test_blending_by_hand():
    # two tiles of 4 in a row of 6: their weights at the two shared pixels are 2 to 1 and 1 to 2
    maps = [np.full((1, 4), value, np.float32) for value in (0.0, 3.0)]
    np.testing.assert_allclose(blend(maps, (1, 6), (1, 4), 0.5), [[0, 0, 1, 2, 3, 3]])


@pytest.fixture
def large(tmp_path):
    """Striped images of 48 x 96; tiles of 32 meet in the middle, and there the defect lies."""
    rng = np.random.default_rng(0)
    root = tmp_path / "stripes"

    def draw(name, defect):
        pixels = np.tile(np.where(np.arange(96) // 4 % 2, 120, 160).astype(np.uint8), (48, 1))
        pixels = pixels + rng.integers(0, 10, pixels.shape).astype(np.uint8)
        mask = np.zeros((48, 96), np.uint8)
        if defect:
            pixels[20:28, 28:36], mask[20:28, 28:36] = 20, 255
            file = root / f"ground_truth/hole/{name}_mask.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(file)
        file = root / (f"test/hole/{name}.png" if defect else name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(pixels[..., None], 3, axis=-1)).save(file)

    for i in range(6):
        draw(f"train/good/{i}.png", False)
    for i in range(2):
        draw(f"test/good/{i}.png", False)
        draw(str(i), True)
    return root


@pytest.mark.parametrize("name", ["patchcore", "padim", "fastflow"])
def test_a_defect_on_a_seam_is_found(name, large, tmp_path):
    config = base_config(name, "folder")
    config.data.update({"root": str(large), "resize": 0, "tile": 32, "tile_overlap": 0.25, "batch_size": 4, "workers": 0})
    config.threshold.holdout = 0.2
    own = {"patchcore": {"sigma": 1.0}, "padim": {"sigma": 1.0, "num_channels": 0}, "fastflow": {"flow_steps": 1, "epochs": 20}}
    config.detector.update({"layers": ("layer1", "layer2"), **own[name]})
    run = iadjax.fit(config, tmp_path / "run")
    table = iadjax.evaluate(run)["stripes"]
    assert table["image_auroc"] == 1 and table["pixel_auroc"] > 0.9
    # the whole image's map, and the same by every way to predict
    rows = list(run.predict_items(run.data.split.test))
    assert all(anomaly_map.shape == (48, 96) for _, _, anomaly_map in rows)
    found = run.predict([item.file for item, _, _ in rows])
    np.testing.assert_allclose(found.score, [score for _, score, _ in rows], rtol=2e-5)
    np.testing.assert_allclose(found.map, [anomaly_map for _, _, anomaly_map in rows], rtol=2e-4, atol=1e-5)
    # no seam: across the borders of tiles the map of a normal image jumps no more than elsewhere
    normal = next(anomaly_map for item, _, anomaly_map in rows if not item.label)
    jumps = np.abs(np.diff(normal, axis=1)).mean(axis=0)
    assert jumps[[20, 31, 42, 63, 74]].mean() < 3 * jumps.mean() + 1e-6


def test_the_size_of_tiles_is_what_the_detector_is_told(large):
    config = base_config("patchcore", "folder")
    config.data.update({"root": str(large), "resize": 0, "tile": (24, 32), "batch_size": 4})
    config.threshold.holdout = 0.2
    config = iadjax.config.resolve(config)
    model, built = iadjax.config.build_model(config), iadjax.config.build_data(config)
    spec = iadjax.config.spec_of(config, built, model)
    number = len(positions((48, 96), (24, 32), 0.25))
    assert spec.image_shape == (24, 32, 3) and spec.num_images == 5 * number and spec.num_validation == number


def test_bad_tiles_are_named(large, tmp_path):
    config = base_config("patchcore", "folder")
    config.data.update({"root": str(large), "resize": 0, "tile": 64})
    with pytest.raises(UserError, match="data.tile 64x64 is larger than the image 48x96"):
        iadjax.fit(config, tmp_path / "run")
    config.data.tile_overlap = 1.0
    with pytest.raises(UserError, match=r"data.tile_overlap is a fraction of a tile, in \[0, 1\); got 1.0"):
        iadjax.fit(config, tmp_path / "run")


def test_an_image_is_decoded_once_for_all_its_tiles(large, tmp_path):
    config = base_config("padim", "folder")
    config.data.update({"root": str(large), "resize": 0, "tile": 16, "batch_size": 4, "workers": 0})
    config.detector.update({"layers": ("layer1",), "num_channels": 0})
    run = iadjax.fit(config, tmp_path / "run")
    built = run.data
    reads = []

    def read(item):
        reads.append(item.path)
        return built.dataset.read(item)

    run.__dict__["data"] = built._replace(dataset=built.dataset._replace(read=read))
    items = built.split.test
    assert len(list(run.predict_items(items))) == len(items) > 1
    # and the first one once more, for its size
    assert len(reads) == len(items) + 1
    assert list(run.predict_items([])) == []
