"""Colours of maps are the run's: fitted on held-out normal images, the same in every picture, and said in a legend."""

import os

import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax.data import Transform
from iadjax.experiment import fit as driver
from iadjax.export import export, load_exported
from iadjax.report import legend, map_on, map_range, normal_range, overlay
from iadjax.report.pictures import colorize, picture, shrunk
from tests.conftest import config_for, draw_tree


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three of six normal images are held out."""
    root = tmp_path_factory.mktemp("colours")
    config = config_for(draw_tree(root))
    config.threshold.holdout = 0.5
    # names that are markup, or no text
    (root / "bolt/test/good/000.png").rename(root / "bolt/test/good/<img src=x onerror=alert(1)>.png")
    (root / "bolt/test/good/001.png").rename(root / "bolt/test/good" / os.fsdecode(b"caf\xe9.png"))
    run = iadjax.fit(config, root / "run")
    iadjax.evaluate(run, output=root / "run", speed=False)
    return run


def test_the_range_and_the_pixel_threshold_come_from_held_out_images(run):
    maps = np.stack([found for _, _, found in run.predict_items(run.data.split.validation)])
    assert len(maps) == 3
    limit = np.quantile(maps.max((1, 2)).astype(np.float64), 0.99)
    assert run.threshold["pixel_value"] == pytest.approx(limit, rel=1e-6)
    low, high = run.threshold["map_range"]
    assert low == pytest.approx(np.median(maps), rel=1e-6) and (2 * low + high) / 3 == pytest.approx(limit, rel=1e-6)
    assert map_range(iadjax.load(run.workdir).threshold) == (low, high)


def test_an_exported_detector_carries_them(run, tmp_path):
    exported = load_exported(export(run, tmp_path))
    assert exported.threshold == run.threshold and map_range(exported.threshold) is not None


def test_a_rule_that_does_not_fit_the_maps_leaves_colours_alone(capsys):
    largest, pixels = np.array([1.0, 2.0], np.float32), [np.zeros(5, np.float32)]
    found = driver._of_maps("extreme_value", {"fpr": 0.01, "tail_fraction": 0.1}, largest, pixels)
    assert found == {"map_range": [0.0, 6.0]}
    assert "no pixel threshold, so no masks and contours: extreme_value fits a tail" in capsys.readouterr().err
    assert driver._of_maps("quantile", {}, np.zeros(0), []) == {}


def test_an_image_looks_the_same_alone_and_among_others(run, tmp_path):
    test = run.workdir.parent / "bolt/test"
    iadjax.predict_files(run, test, tmp_path / "all")
    good = next((test / "good").glob("<img*"))
    iadjax.predict_files(run, good, tmp_path / "one")
    alone = tmp_path / f"one/overlays/{good.name}.png"
    assert alone.read_bytes() == (tmp_path / f"all/overlays/good/{good.name}.png").read_bytes()
    assert (tmp_path / "one/legend.png").read_bytes() == (tmp_path / "all/legend.png").read_bytes()
    # a good image is cold, a defect is hot
    low, high = map_range(run.threshold)
    good, bad = (run.predict(path).map[0] >= high for path in (good, test / "dent/000.png"))
    assert good.mean() < 0.02 < 0.1 < bad.mean()


def test_the_report_shows_the_scale_and_escapes_names(run):
    page = (run.workdir / "report/index.html").read_text(encoding="utf-8")
    low, high = map_range(run.threshold)
    for position, text in (
        (0, f"{low:.4g}"),
        (100, f"{high:.4g}"),
        (100 / 3, f"{run.threshold['pixel_value']:.4g} pixel threshold"),
    ):
        assert f'<span style="left: {position:.1f}%">{text}</span>' in page
    assert "from held-out normal images" in page
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "caf\\xe9.png" in page and "caf\\xe9.png" in (run.workdir / "scores.csv").read_text(encoding="utf-8")


def test_the_legend_has_the_colours_of_its_numbers():
    pixels = np.asarray(legend(1.0, 3.0, 2.0))
    assert pixels.shape[1] == 440
    bar = pixels[30, 40:400]
    np.testing.assert_array_equal(bar[[0, -1]], colorize(np.float32([[1.0, 3.0]]), 1.0, 3.0)[0])
    middle = colorize(np.float32([[2.0]]), 1.0, 3.0)[0, 0].astype(int)
    assert np.abs(bar[180].astype(int) - middle).max() <= 2
    assert (np.asarray(legend(1.0, 3.0)) != pixels).any()


def test_normal_range():
    assert normal_range(np.float32([1, 2, 3]), 5.0) == (2.0, 11.0)
    # a constant map
    assert normal_range(np.float32([2, 2]), 2.0) == (2.0, 3.0)


@pytest.mark.parametrize(
    "transform", [Transform(32), Transform(32, 20), Transform(30, 0, multiple=14), Transform(32, map_sigma=2.0)]
)
def test_a_map_on_a_picture_of_the_original_size_is_the_map_brought_back(transform):
    size = transform.geometry(70, 90).size
    values = np.random.default_rng(0).random(size, np.float32)
    found, (top, left) = map_on(transform, values, (70, 90), (70, 90))
    np.testing.assert_array_equal(found, transform.map_back(values, 70, 90))
    assert (left, top) == transform.origin(70, 90)
    # and on a smaller picture it lies where the picture's part is
    small, (top, left) = map_on(transform, values, (70, 90), (35, 45))
    full = transform.origin(70, 90)
    assert abs(left - full[0] / 2) <= 1 and abs(top - full[1] / 2) <= 1
    assert all(abs(a - b / 2) <= 1 for a, b in zip(small.shape, found.shape, strict=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [0, 150])
def test_an_overlay_is_the_blend_of_picture_and_colours(dtype, size):
    image = np.random.default_rng(0).integers(0, 256, (600, 40, 3), np.uint8)
    image = image if dtype == np.uint8 else image.astype(np.float32) / 255
    values = np.random.default_rng(1).random((32, 32), np.float32)
    found = np.asarray(overlay(image, Transform(32), values, 0.2, 0.8, size))
    rgb = shrunk(image, size)
    assert found.shape == rgb.shape == ((600, 40, 3) if not size else (150, 10, 3))
    large = np.asarray(Image.fromarray(values).resize(rgb.shape[1::-1], Image.Resampling.BILINEAR))
    strength = (0.15 + 0.55 * np.clip((large - 0.2) / 0.6, 0, 1))[..., None]
    truth = (1 - strength) * rgb + strength * colorize(large, 0.2, 0.8)
    assert np.abs(found - truth).max() <= 0.51
    np.testing.assert_array_equal(shrunk(image, 0), picture(image))
