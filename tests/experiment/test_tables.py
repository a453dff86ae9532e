"""Tables of runs, from files made by hand, whose means are computed here by hand."""

import json
import re
from html.parser import HTMLParser

import pytest

from iadjax import config as configs
from iadjax.config import Row, base_config
from iadjax.errors import UserError
from iadjax.experiment import tables
from iadjax.experiment.tables import published, write


def a_run(folder, category="bottle", seed=0, auroc=0.9, pixel=0.8, dataset="mvtec_ad", changes=None, **record):
    """Writes the files of a run, and returns its directory."""
    config = base_config("patchcore", dataset)
    config.data.update({"category": category, "root": "somewhere"})
    config.seed = seed
    for key, value in (changes or {}).items():
        section, name = key.split(".")
        config[section][name] = value
    row = {"image_auroc": auroc, "pixel_auroc": pixel, "pixel_ap": None, "aupro": 0.5, "aupro_05": 0.25, "images": 10}
    row |= {"latency_ms": 2.0 + seed, "throughput_ips": 100.0}
    folder.mkdir(parents=True)
    about = {"seed": seed, "images": {"test": 10}, "fingerprint_parts": {"data": f"images of {category}"}, "started": f"{seed}"}
    about |= {"wall_seconds": {"fit": 4.0}, "peak_memory_bytes": 2**30 * (seed + 1), "device": {"kind": "cpu"}, "weights": {}}
    (folder / "config.json").write_text(json.dumps(configs.resolve(config)))
    (folder / "metrics.json").write_text(json.dumps({category: row, "mean": row}))
    (folder / "run.json").write_text(json.dumps(about | record))
    return folder


@pytest.fixture
def quoted(monkeypatch):
    """A published row of PatchCore on MVTec AD."""
    protocol = {"data.resize": 256, "data.crop": 224, "detector.layers": ("layer2", "layer3")}
    row = Row("mvtec_ad", {"image_auroc": 0.99, "pixel_auroc": 0.98}, "Roth et al. <2022> & others", protocol)
    monkeypatch.setattr(published, "published_rows", lambda name: [row] if name == "unsupervised/patchcore.py" else [])
    return row


def four_runs(folder):
    values = {("bottle", 0): 0.9, ("cable", 0): 0.7, ("bottle", 1): 1.0, ("cable", 1): 0.8}
    for (category, seed), auroc in values.items():
        a_run(folder / f"deep/{category}{seed}", category, seed, auroc)
    return folder


def test_a_row_is_the_mean_over_categories_and_seeds(tmp_path, quoted):
    (row,) = tables.write_tables([four_runs(tmp_path / "runs")], tmp_path / "out", print)
    # seeds have the means .8 and .9, whose sample standard deviation is .1 / sqrt(2)
    assert row["metrics"]["image_auroc"] == pytest.approx({"mean": 0.85, "std": 0.1 / 2**0.5})
    assert row["metrics"]["pixel_auroc"] == pytest.approx({"mean": 0.8, "std": 0.0})
    assert row["metrics"]["pixel_ap"] == {"mean": None, "std": None}
    assert row["speed"] == {"latency_ms": 2.5, "throughput_ips": 100.0, "peak_gib": 2.0, "fit_seconds": 4.0}
    assert row["by_category"]["bottle"]["image_auroc"] == pytest.approx(0.95)
    assert row["categories"] == ["bottle", "cable"] and row["seeds"] == [0, 1] and row["runs"] == 4
    stored = json.loads((tmp_path / "out/table.json").read_text())
    assert stored["rows"] == json.loads(json.dumps([row])) and "standard deviation over seeds" in stored["caption"]


def test_the_published_row_stands_beside_with_what_differs(tmp_path, quoted):
    (row,) = tables.write_tables([four_runs(tmp_path / "runs")], tmp_path / "out", print)
    found = row["published"]
    assert found["difference"] == pytest.approx({"image_auroc": -0.14, "pixel_auroc": -0.18})
    assert found["differs"] == ["data.crop 224, here 0", "2 of 15 categories"]
    text = (tmp_path / "out/table.md").read_text()
    assert "0.8500 ± 0.0707" in text and "0.9900" in text and "-0.1400" in text and "data.crop 224, here 0" in text


def test_a_quick_run_has_no_published_row(tmp_path, quoted):
    run = a_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    figures = write.collect([run], print)[0]
    assert published.beside(figures) is quoted
    assert published.beside(figures._replace(config=config | {"quick": True})) is None


def test_runs_of_other_configs_images_or_splits_have_rows_of_their_own(tmp_path, quoted):
    a_run(tmp_path / "a")
    a_run(tmp_path / "b", seed=1, changes={"detector.coreset_ratio": 0.5})
    a_run(tmp_path / "c", seed=1, fingerprint_parts={"data": "other images"})
    a_run(tmp_path / "d", seed=1, images={"test": 99})
    a_run(tmp_path / "e", seed=1, dataset="visa")
    a_run(tmp_path / "f", seed=1)
    rows = tables.write_tables([tmp_path], tmp_path / "out", print)
    # of all these only a and f belong together
    assert sorted(row["runs"] for row in rows) == [1, 1, 1, 1, 2]
    assert len({(row["config"], row["dataset"]) for row in rows}) == 5
    assert {
        "detector.coreset_ratio" in row["config"] or any("coreset_ratio" in each for each in row["notes"]) for row in rows
    } == {
        True,
        False,
    }
    judged = [row for row in rows if any("not its test part" in note for note in row["notes"])]
    assert len(judged) == 1 and any("not its test part" in each for each in judged[0]["published"]["differs"])


def test_a_seed_that_lacks_a_category_is_no_part_of_the_mean(tmp_path, quoted):
    four_runs(tmp_path / "runs")
    a_run(tmp_path / "runs/bottle2", "bottle", 2, auroc=0.0)
    (row,) = tables.write_tables([tmp_path / "runs"], tmp_path / "out", print)
    assert row["metrics"]["image_auroc"]["mean"] == pytest.approx(0.85)
    assert "missing: cable seed 2" in row["notes"][0]


def test_a_config_with_settings_by_category_is_one_row_of_a_sweep(tmp_path, quoted):
    sweep = {"config": "mine.py", "by_category": ["detector.coreset_ratio"]}
    a_run(tmp_path / "runs/a", "bottle", sweep=sweep)
    a_run(tmp_path / "runs/b", "cable", sweep=sweep, changes={"detector.coreset_ratio": 0.5})
    (row,) = tables.write_tables([tmp_path / "runs"], tmp_path / "out", print)
    assert row["categories"] == ["bottle", "cable"] and row["keys"]["detector.coreset_ratio"] == "by category"


def test_the_same_seed_twice_counts_once(tmp_path, quoted):
    a_run(tmp_path / "runs/a", auroc=0.1, started="2024")
    a_run(tmp_path / "runs/b", auroc=0.7, started="2025")
    lines = []
    (row,) = tables.write_tables([tmp_path / "runs", tmp_path / "runs/a"], tmp_path / "out", lines.append)
    assert row["metrics"]["image_auroc"] == {"mean": 0.7, "std": None} and row["runs"] == 1
    assert any("two runs of bottle" in line for line in lines)


def test_unfinished_runs_and_trials_are_left_out(tmp_path, quoted):
    a_run(tmp_path / "runs/a")
    (a_run(tmp_path / "runs/b", seed=1) / "metrics.json").unlink()
    (tmp_path / "runs/sweep.json").write_text("{}")
    a_run(tmp_path / "runs/search/trial", seed=2)
    lines = []
    (row,) = tables.write_tables([tmp_path / "runs"], tmp_path / "out", lines.append)
    assert row["seeds"] == [0] and len(lines) == 1 and "is not finished" in lines[0]


class Tags(HTMLParser):
    """Checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_escaped_and_needs_no_other_file(tmp_path, quoted):
    tables.write_tables([four_runs(tmp_path / "runs")], tmp_path / "out", print, {"a <b>": "it says <script>"})
    page = (tmp_path / "out/index.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "published: Roth et al. <2022> & others" in tags.text
    assert "<2022>" not in page and "<script" not in page
    assert not re.search(r"(src|href)=|url\(|@import", page)


def test_latex_has_as_many_cells_in_every_line_and_escapes(tmp_path, quoted):
    tables.write_tables([four_runs(tmp_path / "runs")], tmp_path / "out", print)
    text = (tmp_path / "out/table.tex").read_text()
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = len(re.search(r"\{tabular\}\{(\w+)\}", text)[1])
    assert len(lines) == 4 and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)
    assert r"mvtec\_ad" in text and r"<2022> \& others" in text and r"$\pm$" in text


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: (run / "metrics.json").write_text("{"), "cannot read .*metrics.json"),
        (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json holds no JSON object"),
        (lambda run: (run / "metrics.json").write_text('{"mean": {}}'), "no table of metrics"),
        (
            lambda run: (run / "metrics.json").write_text('{"bottle": {"image_auroc": "good"}}'),
            "'good' for image_auroc of bottle",
        ),
        (lambda run: (run / "config.json").unlink(), "holds no runs"),
        (lambda run: (run / "metrics.json").unlink(), "no run in .* has figures"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, spoil, sentence):
    spoil(a_run(tmp_path / "run"))
    with pytest.raises(UserError, match=sentence):
        tables.write_tables([tmp_path], tmp_path / "out", lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no directory"):
        tables.write_tables([tmp_path / "nowhere"], tmp_path / "out", print)
