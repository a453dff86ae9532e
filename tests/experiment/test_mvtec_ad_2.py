"""MVTec AD 2 from its config to the submission, on a drawn tree: tiles, the threshold of normal images, SegF1, ClassF1."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

import iadjax
from iadjax.config import load_config
from iadjax.experiment.submission import write_submission
from tests.data.trees import draw

SMALL = "category=vial,data.tile=16,data.batch_size=4,data.workers=0,backbone.name=filter_bank,detector.layers=('layer1',)"


def test_the_public_images_are_judged_at_the_threshold_of_normal_images(tmp_path):
    truth, _ = draw("mvtec_ad_2", tmp_path / "raw")
    config = load_config(f"unsupervised/patchcore.py:mvtec_ad_2,{SMALL},detector.coreset_ratio=0.5,evaluate.save_maps=true")
    config.data.root = str(tmp_path / "raw")
    run = iadjax.fit(config, tmp_path / "run")
    threshold = json.loads((tmp_path / "run/threshold.json").read_text())
    # of the validation part alone, by the rule mean + 3 standard deviations of the largest pixels
    maps = [run.predict(tmp_path / f"raw/vial/validation/good/{each}.png").map for each in ("000_regular", "001_overexposed")]
    largest = np.array([each.max() for each in maps], np.float64)
    assert threshold["pixel_value"] == pytest.approx(largest.mean() + 3 * largest.std(), rel=1e-4)
    row = iadjax.evaluate(run, output=tmp_path / "run", speed=False)["vial"]
    # the truth: F1 in float64 from the files
    counts = {light: np.zeros((2, 3)) for light in ("regular", "shifted")}
    for path, each in truth.items():
        if each.part == "test" and each.category == "vial":
            flagged = tifffile.imread((tmp_path / "run/maps" / path).with_suffix(".tiff")) >= threshold["pixel_value"]
            marked = np.zeros(flagged.shape, bool) if each.mask is None else each.mask > 0
            light = "regular" if "regular" in path else "shifted"
            for kind, (found, real) in enumerate(((flagged, marked), (flagged.any(), marked.any()))):
                counts[light][kind] += (np.sum(found & real), np.sum(found & ~real), np.sum(~found & real))
    counts[""] = sum(counts.values())
    for light, own in counts.items():
        for key, (true, false, missed) in zip(("seg_f1", "class_f1"), own, strict=True):
            expected = 2 * true / (2 * true + false + missed) if true + false + missed else np.nan
            assert row[f"{key}_{light}".rstrip("_")] == pytest.approx(expected, nan_ok=True), (key, light)
    assert "aupro_05" in row and row["resolution"] == "original"


def test_the_private_images_become_a_submission(tmp_path):
    truth, _ = draw("mvtec_ad_2_private", tmp_path / "raw")
    config = load_config(f"few_shot/anomalydino.py:mvtec_ad_2_private,{SMALL},protocol.num_shots=2")
    config.data.root = str(tmp_path / "raw")
    run = iadjax.fit(config, tmp_path / "run")
    iadjax.evaluate(run, output=tmp_path / "run", speed=False)
    assert "seg_f1" not in json.loads((tmp_path / "run/metrics.json").read_text())["vial"]
    assert write_submission(tmp_path / "run", tmp_path / "out") == 4
    names = [path for path, each in truth.items() if each.part == "test" and each.category == "vial"]
    assert len(names) == 4
    for name in names:
        scores = tifffile.imread((tmp_path / "out/anomaly_images" / name).with_suffix(".tiff"))
        decisions = np.asarray(Image.open((tmp_path / "out/anomaly_images_thresholded" / name).with_suffix(".png")))
        size = np.asarray(Image.open(tmp_path / "raw" / name)).shape[:2]
        assert scores.dtype == np.float16 and decisions.dtype == np.uint8 and scores.shape == decisions.shape == size
        exact = tifffile.imread((tmp_path / "run/maps" / name).with_suffix(".tiff"))
        assert ((decisions == 255) == (exact >= run.threshold["pixel_value"])).all() and set(np.unique(decisions)) <= {0, 255}
