"""PatchCore from a config to files: the golden run, determinism, batch sizes, loading, predicting."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax import data, metrics
from iadjax.errors import UserError
from tests.data import trees


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The default run of one category, evaluated."""
    from iadjax.config import base_config

    config = base_config("patchcore", "synthetic")
    config.data.update({"category": "fabric", "resize": 128})
    config.detector.coreset_ratio = 0.02
    workdir = tmp_path_factory.mktemp("golden") / "run"
    run = iadjax.fit(config, workdir)
    return run, iadjax.evaluate(run, output=workdir)


def test_golden_metrics(golden):
    _, table = golden
    assert table["fabric"]["image_auroc"] >= 0.97
    assert table["fabric"]["pixel_auroc"] >= 0.95
    assert table["fabric"]["aupro"] >= 0.8
    assert table["mean"]["image_auroc"] == table["fabric"]["image_auroc"]


def test_what_a_run_writes(golden):
    run, _ = golden
    table = json.loads((run.workdir / "metrics.json").read_text())
    image = ("image_auroc", "image_ap", "image_f1max")
    keys = (*image, "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05", "latency_ms", "throughput_ips")
    assert set(table) == {"fabric", "mean"} and set(keys) <= set(table["fabric"])
    assert table["fabric"]["resolution"] == "original"
    rows = list(csv.DictReader((run.workdir / "scores.csv").read_text().splitlines()))
    assert len(rows) == 52 and list(rows[0]) == ["path", "category", "label", "score"]
    record = json.loads((run.workdir / "run.json").read_text())
    assert record["seed"] == 0 and record["weights"]["backbone"]["name"] == "filter_bank"
    assert {"fingerprint", "versions", "device", "wall_seconds", "peak_memory_bytes"} <= set(record)
    assert {"prepare", "fit", "threshold", "predict", "metrics", "report"} <= set(record["wall_seconds"])
    threshold = json.loads((run.workdir / "threshold.json").read_text())
    assert threshold["images"] == 6 and record["images"] == {"train": 54, "validation": 6, "test": 52}
    assert not list(run.workdir.rglob("*.tmp"))


def test_report_opens_from_disk(golden):
    run, _ = golden
    page = (run.workdir / "report/index.html").read_text()
    sources = {part.split('"')[0] for part in page.split('src="')[1:]}
    assert len(sources) == 3 * 52
    assert all((run.workdir / "report" / source).is_file() for source in sources)
    assert "http://" not in page and "https://" not in page
    assert page.count("<svg") == 3


def test_the_same_config_gives_the_same_bytes(config, tmp_path):
    for name in ("a", "b"):
        iadjax.evaluate(iadjax.fit(config, tmp_path / name), output=tmp_path / name)
    assert (tmp_path / "a/scores.csv").read_bytes() == (tmp_path / "b/scores.csv").read_bytes()
    config.seed = 1
    iadjax.evaluate(iadjax.fit(config, tmp_path / "c"), output=tmp_path / "c")
    assert (tmp_path / "a/scores.csv").read_bytes() != (tmp_path / "c/scores.csv").read_bytes()


def test_scores_do_not_depend_on_the_batch_size(config, tmp_path):
    scores = []
    for size in (1, 7, 32):
        config.data.batch_size = size
        run = iadjax.fit(config, tmp_path / str(size))
        scores.append([score for _, score, _ in run.predict_items(run.data.split.test)])
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-5)


def test_a_loaded_run_predicts_the_same(golden):
    run, _ = golden
    loaded = iadjax.load(run.workdir)
    images = [data.load("synthetic", category="fabric").read(item)[0] for item in run.data.split.test[:3]]
    first, again = run.predict(images), loaded.predict(images)
    np.testing.assert_array_equal(first.score, again.score)
    assert first.map.shape == (3, 128, 128) and loaded.threshold == run.threshold
    as_float = run.predict([image.astype(np.float32) / 255 for image in images])
    np.testing.assert_allclose(as_float.score, first.score, rtol=0.02)


def test_predict_files(golden, tmp_path):
    run, _ = golden
    good, bad = run.data.split.test[0], run.data.split.test[-1]
    for i, item in enumerate((good, bad)):
        (tmp_path / "in/sub").mkdir(parents=True, exist_ok=True)
        # another size than what was fitted on
        Image.fromarray(run.data.dataset.read(item)[0]).resize((200 + 40 * i, 180)).save(tmp_path / f"in/sub/{i}.png")
    assert iadjax.predict_files(run, tmp_path / "in", tmp_path / "out") == 2
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["sub/0.png", "sub/1.png"]
    assert float(rows[0]["score"]) < float(rows[1]["score"]) and rows[1]["anomalous"] == "1"
    with Image.open(tmp_path / "out/overlays/sub/1.png.png") as overlay:
        assert overlay.size == (240, 180)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        iadjax.predict_files(run, tmp_path / "none", tmp_path / "out2")


def test_evaluate_knows_its_splits(golden):
    run, _ = golden
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        iadjax.evaluate(run, "tset")


def test_pixel_metrics_are_null_without_masks(tree_config, tree, tmp_path):
    import shutil

    shutil.rmtree(tree / "ground_truth")
    run = iadjax.fit(tree_config, tmp_path / "run")
    iadjax.evaluate(run, output=tmp_path / "run")
    table = json.loads((tmp_path / "run/metrics.json").read_text())
    assert table["bolt"]["pixel_auroc"] is None and table["bolt"]["image_auroc"] is not None


def test_maps_past_the_budget_are_streamed_with_bounds(golden):
    run, exact = golden
    small = {**run.config, "evaluate": {**run.config["evaluate"], "byte_budget": 2**20}}
    table = iadjax.evaluate(dataclasses.replace(run, config=small))["fabric"]
    assert exact["fabric"]["pixel_exact"] and not table["pixel_exact"]
    for key, bound in table["pixel_error_bounds"].items():
        assert bound < 1e-4
        assert abs(table[key] - exact["fabric"][key]) <= bound + 1e-9, key


def test_loco_has_saturated_overlap_by_kind(tmp_path):
    from iadjax.config import base_config

    trees.draw("mvtec_loco", tmp_path / "loco")
    config = base_config("patchcore", "mvtec_loco")
    config.data.update({"root": str(tmp_path / "loco"), "category": "pushpins", "resize": 32, "crop": 0, "batch_size": 4})
    config.detector.update({"layers": ("layer1", "layer2"), "coreset_ratio": 0.5})
    run = iadjax.fit(config, tmp_path / "run")
    table = iadjax.evaluate(run, output=tmp_path / "run")
    maps, defects, kinds = [], [], []
    for item, _, small in run.predict_items(run.data.split.test):
        maps.append(run.transform.map_back(small, *trees.SIZE))
        kinds.append(item.defect)
        found = []
        for file in sorted((tmp_path / "loco" / item.path.replace("/test/", "/ground_truth/")).with_suffix("").glob("*.png")):
            pixels = np.asarray(Image.open(file))
            # the rules of the tree: 255 saturates at 10 pixels, 254 at half of the defect
            found.append(metrics.Defect(pixels > 0, 10 if pixels.max() == 255 else (pixels > 0).sum() / 2))
        defects.append(found)
    assert [len(some) for some in defects] == [0, 0, 1, 2, 1, 2]
    for kind, value in metrics.loco_au_spro(maps, defects, kinds).items():
        key = "au_spro" if kind == "mean" else f"au_spro_{kind}"
        assert table["pushpins"][key] == table["mean"][key] == pytest.approx(value, abs=1e-12)
    scores = {kind: [run_score for run_score, each in _scores(tmp_path / "run") if each == kind] for kind in set(kinds)}
    for kind in ("logical", "structural"):
        above = np.subtract.outer(scores[f"{kind}_anomalies"], scores["good"])
        assert table["pushpins"][f"image_auroc_{kind}"] == np.mean((above > 0) + (above == 0) / 2)
    assert "AU-sPRO .05 logical" in (tmp_path / "run/report/index.html").read_text()
    # saturation areas are pixels of the original
    resized = {**run.config, "evaluate": {**run.config["evaluate"], "eval_size": 16}}
    assert "au_spro" not in iadjax.evaluate(dataclasses.replace(run, config=resized), speed=False)["pushpins"]


def _scores(workdir):
    rows = csv.DictReader((workdir / "scores.csv").read_text().splitlines())
    return [(float(row["score"]), row["path"].split("/")[-2]) for row in rows]


def test_a_deeper_image_in_the_batch_changes_no_score(golden):
    run, _ = golden
    eight = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    deep = eight.astype(np.float32) / np.float32(255)
    alone, other = (run.predict([image]) for image in (eight, deep))
    together = run.predict([eight, deep])
    np.testing.assert_allclose(together.score, [alone.score[0], other.score[0]], rtol=2e-5)
    np.testing.assert_allclose(together.map, [alone.map[0], other.map[0]], rtol=2e-4, atol=1e-5)


def test_sizes_that_differ_between_batches_are_named(golden):
    run, _ = golden
    config = {**run.config, "data": {**run.config["data"], "batch_size": 1}}
    whole = dataclasses.replace(run, config=config, model=run.model._replace(transform=run.transform._replace(resize=0)))
    with pytest.raises(UserError, match="differ in size after data.resize"):
        whole.predict([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)])
