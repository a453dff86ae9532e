"""The search: its space, the same trials from the same seed, an objective without test images, and a whole one by submitit."""

import json

import numpy as np
import pytest

import iadjax
from iadjax import metrics
from iadjax.errors import UserError
from iadjax.experiment.sweep import objective, search, submit
from iadjax.experiment.sweep.plan import make_plan
from iadjax.experiment.sweep.space import check_space, read_space
from iadjax.experiment.sweep.store import store_plan

SPACE = {
    "detector.coreset_ratio": {"low": 0.1, "high": 0.9, "log": True},
    "detector.num_neighbors": {"low": 1, "high": 3},
    "detector.layers": {"choices": [["layer1"], ["layer1", "layer2"]]},
}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "holds no JSON object"),
        ("{}", "holds no space"),
        ('{"detector.sigma": 3}', "must be a range or choices"),
        ('{"detector.sigma": {"choices": []}}', "a list that is not empty"),
        ('{"detector.sigma": {"low": 3, "high": 1}}', "low < high"),
        ('{"detector.sigma": {"low": 0, "high": 1, "log": true}}', "low above 0"),
        ('{"detector.sigma": {"low": 1, "height": 2}}', "must be a range or choices"),
    ],
)
def test_a_damaged_space_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "space.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_space(tmp_path / "space.json")


def test_a_space_is_json_or_python_and_fits_the_config(tmp_path, config):
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "space.py").write_text(f"SPACE = {SPACE!r}")
    assert read_space(tmp_path / "space.json") == read_space(tmp_path / "space.py") == SPACE
    resolved = iadjax.config.resolve(config)
    check_space(SPACE, resolved)
    for key, value, sentence in [
        ("detector.nothing", {"low": 0, "high": 1}, "has not got"),
        ("detector.coreset_ratio", {"choices": ["much"]}, "must be float"),
        ("seed", {"low": 0, "high": 9}, "changes what is measured"),
        ("data.category", {"choices": ["wood"]}, "changes what is measured"),
    ]:
        with pytest.raises(UserError, match=sentence):
            check_space({key: value}, resolved)


@pytest.fixture
def planned(tmp_path, tree):
    """A function that makes the plan of a search on the images of `tree`."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from iadjax.config import base_config\n"
        "def get_config():\n"
        "    config = base_config('patchcore', 'folder')\n"
        f"    config.data.update({{'root': {str(tree)!r}, 'resize': 32, 'batch_size': 4, 'workers': 0}})\n"
        "    config.detector.layers = ('layer1',)\n"
        "    config.threshold.holdout = 0.0\n"
        "    return config\n"
    )

    def plan(space=SPACE, trials=6, storage="journal", on_test=False, metric="image_auroc", seed=0):
        return make_plan([str(file)], "", "1", {}, search.make_search(space, trials, metric, storage, on_test, seed))

    pytest.importorskip("optuna")
    return plan


def drawn(folder, plan, stop_at=()):
    """The options of all trials, whose values are those of a formula; some trials are begun twice."""
    (label,) = plan.configs
    found = []
    for number in range(plan.search["trials"]):
        if number in stop_at:
            search.options_of(folder, plan, label, number)
        study, trial, options = search.options_of(folder, plan, label, number)
        found.append(options)
        study.tell(trial.number, options["detector.num_neighbors"] - abs(np.log(options["detector.coreset_ratio"] / 0.3)))
    return found


def test_the_same_seed_draws_the_same_trials_also_after_a_stop(tmp_path, planned):
    # TPE models the values from the eleventh trial on
    first = drawn(tmp_path / "a", planned(trials=13))
    assert drawn(tmp_path / "b", planned(trials=13), stop_at=(3, 12)) == first
    assert drawn(tmp_path / "c", planned(trials=2, seed=1)) != first[:2]
    assert all(0.1 <= each["detector.coreset_ratio"] <= 0.9 and each["detector.num_neighbors"] in (1, 2, 3) for each in first)
    assert {json.dumps(each["detector.layers"]) for each in first} == {'["layer1"]', '["layer1", "layer2"]'}


def test_the_best_is_chosen_once(tmp_path, planned):
    plan, lines = planned(), []
    found = drawn(tmp_path, plan)
    search.choose(tmp_path, plan, lines.append)
    search.choose(tmp_path, plan, lines.append)
    best = json.loads((tmp_path / "search/" / next(iter(plan.configs)) / "best.json").read_text())
    value = {id(each): each["detector.num_neighbors"] - abs(np.log(each["detector.coreset_ratio"] / 0.3)) for each in found}
    assert best["options"] == max(found, key=lambda each: value[id(each)]) and best["value"] == max(value.values())
    assert len(lines) == 1 and "synthetic anomalies (CutPaste" in lines[0] and "6 trials" in lines[0]


def test_a_search_on_the_test_set_says_so(tmp_path, planned):
    plan, lines = planned(trials=1, on_test=True), []
    drawn(tmp_path, plan)
    search.choose(tmp_path, plan, lines.append)
    assert "image_auroc ON THE TEST SET (--search_on_test)" in lines[0] and "synthetic" not in lines[0]


def test_a_database_of_another_space_is_refused(tmp_path, planned):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    drawn(tmp_path, planned(trials=1, storage=storage))
    search.check(tmp_path, planned(trials=3, storage=storage))
    for other, what in [
        (planned({"detector.sigma": {"low": 1.0, "high": 4.0}}, storage=storage), "space"),
        (planned(storage=storage, on_test=True), "objective or config"),
    ]:
        with pytest.raises(UserError, match=f"of another {what}; give another --search_storage"):
            search.check(tmp_path, other)
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be read as one" * 20)
    with pytest.raises(UserError, match="cannot open the storage"):
        search.check(tmp_path, planned(storage=f"sqlite:///{tmp_path / 'text.db'}"))


def test_bad_options_of_a_search(planned):
    for change, sentence in [
        ({"trials": 0}, "--trials"),
        ({"metric": "f1"}, "--search_metric"),
        ({"storage": "disk"}, "--search_storage"),
    ]:
        with pytest.raises(UserError, match=sentence):
            planned(**change)


def test_synthetic_anomalies_lie_where_their_masks_say():
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for found, mask in objective.synthetic_anomalies(image, (0, 1)):
        assert mask.any() and mask.shape == (40, 56) and set(np.unique(mask)) <= {0, 1}
        np.testing.assert_array_equal(found[mask == 0], (image / np.float32(255)).astype(np.float32)[mask == 0])
        assert (found[mask == 1] != (image / np.float32(255))[mask == 1]).any()
    again = objective.synthetic_anomalies(image, (0, 1))
    np.testing.assert_array_equal(again[1][0], found)
    assert (objective.synthetic_anomalies(image, (1, 1))[1][0] != found).any()


def test_the_objective_reads_held_out_images_alone(tmp_path, tree_config):
    tree_config.threshold.holdout = 0.4
    tree_config.detector.layers = ("layer1",)
    run = iadjax.fit(tree_config, tmp_path / "run")
    held, read = run.data.split.validation, run.data.dataset.read
    seen = []

    def watched(item):
        seen.append(item.path)
        return read(item)

    watching = run.data._replace(dataset=run.data.dataset._replace(read=watched))
    object.__setattr__(run, "data", watching)
    value = objective.measure(run, "image_auroc", 5)
    assert set(seen) == {item.path for item in held} and len(held) == 2
    normal = [read(item)[0] for item in held]
    made = [each for i, image in enumerate(normal) for each in objective.synthetic_anomalies(image, (5, i))]
    predicted = run.predict([*normal, *(image for image, _ in made)])
    scores = list(predicted.score)
    pairs = [(good, bad) for good in scores[:2] for bad in scores[2:]]
    assert value == pytest.approx(np.mean([(bad > good) + 0.5 * (bad == good) for good, bad in pairs]))
    maps = [run.transform.map_back(each, 40, 40) for each in predicted.map]
    masks = [np.zeros((40, 40), np.uint8)] * 2 + [mask for _, mask in made]
    by_pixels = metrics.auroc(np.stack(maps).ravel(), np.stack(masks).ravel())
    assert objective.measure(run, "pixel_auroc", 5) == pytest.approx(by_pixels, abs=1e-6)
    without = run.data._replace(split=run.data.split._replace(validation=()))
    object.__setattr__(run, "data", without)
    with pytest.raises(UserError, match="needs held-out normal images"):
        objective.measure(run, "image_auroc", 5)


def test_a_submitted_worker_searches_and_runs(tmp_path, planned):
    pytest.importorskip("submitit")
    plan, place = planned({"detector.coreset_ratio": {"low": 0.1, "high": 0.9}}, trials=1), tmp_path / "sweep"
    search.check(place, plan)
    store_plan(place, plan)
    (job,) = submit.submit(place, "local", 1, 60.0, timeout_min=10)
    assert job.result() == {}
    (label,) = plan.configs
    best = json.loads((place / "search" / label / "best.json").read_text())
    config = json.loads((place / "runs" / label / "all/0/config.json").read_text())
    assert config["detector"]["coreset_ratio"] == best["options"]["detector.coreset_ratio"] != 0.1
    assert config["threshold"]["holdout"] == 0.0
    (row,) = json.loads((place / "table.json").read_text())["rows"]
    assert row["search"] == best["about"] and "synthetic anomalies" in (place / "table.md").read_text()


def test_what_cannot_be_submitted(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no srun here"):
        submit.check("slurm", 1)
    with pytest.raises(UserError, match="could not be submitted"):
        submit.submit(tmp_path, "slurm", 1, 60.0, timeout_min=10)
    with pytest.raises(UserError, match="--submit must be one of slurm, local"):
        submit.check("cloud", 1)
    with pytest.raises(UserError, match="--workers"):
        submit.check("local", 0)
    monkeypatch.setattr(submit.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "iadjax\[slurm\]"'):
        submit.check("slurm", 1)
