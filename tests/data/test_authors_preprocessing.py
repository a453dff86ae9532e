"""The preprocessing of AnomalyDINO's authors, step by step from the paper's and their code's facts, beside the config's."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

import iadjax
from iadjax import data
from iadjax.config import base_config, build, load_config, resolve
from iadjax.data.loader import read_transformed

ROOT = Path(__file__).parents[2]


def test_the_config_prepares_images_as_the_authors_do(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "mvtec/bottle"
    for part, count in (("train/good", 12), ("test/good", 1), ("test/cut", 1), ("ground_truth/cut", 1)):
        (root / part).mkdir(parents=True)
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 255, (10, 13, 3), np.uint8))
            picture = coarse.resize((640, 500), Image.Resampling.BICUBIC)
            if part.startswith("ground"):
                Image.fromarray(255 * (np.asarray(picture)[..., 0] > 127).astype(np.uint8)).save(
                    root / part / f"{i:03d}_mask.png"
                )
            else:
                picture.save(root / part / f"{i:03d}.png")
    config = resolve(load_config(f"{ROOT}/configs/few_shot/anomalydino.py:mvtec_ad,category=bottle"))
    config["data"]["root"] = str(tmp_path / "mvtec")
    built, transform = build.build_data(config), build._transform(config)
    # the first file, in eight orientations
    assert [item.path for item in built.split.train] == [
        "bottle/train/good/000.png" + (f"@{45 * i}" if i else "") for i in range(8)
    ]
    original = np.asarray(Image.open(root / "train/good/000.png"))
    for item, angle in zip(built.split.train, range(0, 360, 45), strict=True):
        found = read_transformed(built.dataset, transform, item)[0]
        # rotated first, about (W / 2, H / 2), mirrored at the edges; then the shorter side to 448, bicubic; then cropped
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        turn = np.array([[cosine, sine], [-sine, cosine]])
        offset = np.array([250, 320]) - turn @ np.array([250, 320])
        planes = [ndimage.affine_transform(original[..., c], turn, offset, order=1, mode="mirror") for c in range(3)]
        resized = Image.fromarray(np.stack(planes, -1)).resize((573, 448), Image.Resampling.BICUBIC)
        expected = np.asarray(resized)[:448, :560] / 255
        assert found.shape == expected.shape == (448, 560, 3)
        # half a pixel between the two centres, and less after the resize
        inner = slice(8, -8)
        assert np.abs(found - expected)[inner, inner].mean() < 0.01
    assert data.read(built.dataset, built.split.test[0])[0].shape == (500, 640, 3)


def test_a_run_on_such_images_writes_whole_maps(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train/good", 5), ("test/good", 2), ("test/cut", 2), ("ground_truth/cut", 2)):
        (tmp_path / "bolt" / part).mkdir(parents=True)
        for i in range(count):
            # a defect at the lower right corner, which the crop cuts through
            pixels = rng.integers(100, 120, (70, 90)).astype(np.uint8)
            if part != "train/good" and "good" not in part:
                pixels = np.where(np.add.outer(np.arange(70), np.arange(90)) > 100, 255, pixels if "test" in part else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "bolt" / part / f"{i}.png")
    config = base_config("patchcore", "folder")
    config.data.update({"root": str(tmp_path / "bolt"), "resize": 60, "resize_side": "shorter", "crop_multiple": 16})
    config.data.update({"interpolation": "bicubic", "batch_size": 2, "workers": 0})
    config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.5})
    config.evaluate.save_maps = True
    config.threshold.holdout = 0.2
    run = iadjax.fit(config, tmp_path / "run")
    table = iadjax.evaluate(run, output=tmp_path / "run", speed=False)
    assert tifffile.imread(tmp_path / "run/maps/test/cut/0.tiff").shape == (70, 90)
    assert table["mean"]["pixel_auroc"] > 0.9 and run.predict([tmp_path / "bolt/test/cut/0.png"]).map.shape == (1, 48, 64)
    run.config["evaluate"]["eval_size"] = 32
    assert iadjax.evaluate(run, speed=False)["mean"]["pixel_auroc"] > 0.9
