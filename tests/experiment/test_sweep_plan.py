"""What a sweep consists of, and what is refused before any work."""

import json
import shutil
import threading

import pytest

from iadjax.errors import UserError
from iadjax.experiment.sweep.plan import Job, config_of, jobs, make_plan, parse_seeds
from iadjax.experiment.sweep.store import once, read_plan, store_plan


@pytest.fixture
def patchcore(tmp_path):
    """A config file whose argument is the data set."""
    file = tmp_path / "mine/patchcore.py"
    file.parent.mkdir()
    file.write_text(
        "from iadjax.config import base_config\n"
        "def get_config(arg='synthetic'):\n"
        "    config = base_config('patchcore', arg)\n"
        "    config.data.category = 'all' if arg == 'synthetic' else ''\n"
        "    return config\n"
    )
    return str(file)


def test_one_run_for_every_config_category_and_seed(patchcore):
    plan = make_plan([patchcore, f"{patchcore}:synthetic"], "washer,wood", "2", {"detector.coreset_ratio": "0.02"})
    first, second = plan.configs
    assert (first, second) == ("mine-patchcore", "mine-patchcore-synthetic")
    assert jobs(plan)[:4] == [Job(label, category, 0) for label in (first, second) for category in ("washer", "wood")]
    assert len(set(jobs(plan))) == len({job.path for job in jobs(plan)}) == 8
    config = config_of(plan, Job(first, "wood", 1))
    assert (config["data"]["category"], config["seed"], config["detector"]["coreset_ratio"]) == ("wood", 1, 0.02)
    config = config_of(plan, Job(first, "wood", 1), {"detector.coreset_ratio": 0.3})
    assert config["detector"]["coreset_ratio"] == 0.3
    assert plan.configs[first]["config"]["detector"]["coreset_ratio"] == 0.02


def test_all_categories_and_those_of_the_config(patchcore):
    everything = ["capsule", "circuit", "fabric", "granite", "washer", "wood"]
    assert make_plan([patchcore], "all", "1", {}).configs["mine-patchcore"]["categories"] == everything
    assert make_plan([patchcore], "", "1", {}).configs["mine-patchcore"]["categories"] == everything
    own = {"data.category": "wood,washer"}
    assert make_plan([patchcore], "", "1", own).configs["mine-patchcore"]["categories"] == ["wood", "washer"]
    together = {"protocol.name": "multi_class"}
    assert make_plan([patchcore], "washer,wood", "1", together).configs["mine-patchcore"]["categories"] == ["washer,wood"]


def test_one_category_of_a_published_data_set(patchcore, tree):
    shutil.copytree(tree, tree.parent / "bottle")
    root = {"data.root": str(tree.parent)}
    for asked in ("bottle", "all"):
        if asked == "all":
            with pytest.raises(UserError, match="cable"):
                make_plan([f"{patchcore}:mvtec_ad"], asked, "1", root)
        else:
            plan = make_plan([f"{patchcore}:mvtec_ad"], asked, "1", root)
            assert [job.category for job in jobs(plan)] == ["bottle"]


def test_settings_by_category_of_a_config_file_are_kept(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from iadjax.config import base_config, finish, parse_arg\n"
        "def get_config(arg=''):\n"
        "    wanted = parse_arg(arg)\n"
        "    config = base_config('patchcore', wanted.dataset)\n"
        "    config.detector.coreset_ratio = 0.5 if wanted.category == 'wood' else 0.25\n"
        "    return finish(config, wanted)\n"
    )
    for name in (str(file), f"{file}:synthetic"):
        plan = make_plan([name], "washer,wood", "1", {"detector.num_neighbors": "3"})
        (label,) = plan.configs
        washer, wood = (config_of(plan, job)["detector"] for job in jobs(plan))
        assert (washer["coreset_ratio"], wood["coreset_ratio"]) == (0.25, 0.5)
        assert washer["num_neighbors"] == wood["num_neighbors"] == 3
        assert plan.configs[label]["by_category"] == {"wood": {"detector.coreset_ratio": 0.5}}
    given = make_plan([str(file)], "washer,wood", "1", {"detector.coreset_ratio": "0.1"})
    assert [config_of(given, job)["detector"]["coreset_ratio"] for job in jobs(given)] == [0.1, 0.1]


def test_a_folder_of_one_category_is_swept(patchcore, tree):
    name, root = f"{patchcore}:folder", {"data.root": str(tree), "data.resize": "32"}
    for asked in ("all", "", "bolt"):
        assert make_plan([name], asked, "1", root).configs["mine-patchcore-folder"]["categories"] == ["all"]


@pytest.mark.parametrize(
    ("argument", "categories", "seeds", "keys", "sentence"),
    [
        ("", "washr", "1", {}, "no category 'washr'; did you mean 'washer'"),
        ("", "washer,bolt", "1", {}, "no category 'bolt'"),
        ("", "washer,washer", "1", {}, "names a category twice"),
        (":mvtec_ad", "all", "1", {}, "root"),
        (":nosuch", "all", "1", {}, "no data set 'nosuch'"),
        ("", "all", "0", {}, "--seeds takes a number"),
        ("", "all", "x", {}, "--seeds takes a number"),
        ("", "all", "1,1", {}, "names a seed twice"),
        ("", "all", "1", {"detector.coreset": "1"}, "no key 'detector.coreset'.*did you mean 'coreset_ratio'"),
        ("", "all", "1", {"detector.coreset_ratio": "much"}, "must be float, like"),
        ("", "all", "1", {"detector.coreset_ratio": "7.0"}, "coreset_ratio"),
        ("", "all", "1", {"protocol.name": "continual"}, "sequence of fits"),
    ],
)
def test_bad_input_is_one_sentence(patchcore, argument, categories, seeds, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        make_plan([patchcore + argument], categories, seeds, keys)


def test_a_config_that_is_missing_or_twice(patchcore):
    with pytest.raises(UserError, match="no config file"):
        make_plan(["nowhere.py"], "", "1", {})
    with pytest.raises(UserError, match="given twice"):
        make_plan([patchcore, patchcore], "", "1", {})
    with pytest.raises(UserError, match="at least one --config"):
        make_plan([], "", "1", {})


def test_seeds():
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4, 7") == (4, 7) and parse_seeds("4,") == (4,)


def test_a_second_call_has_to_agree(patchcore, tmp_path):
    plan, place = make_plan([patchcore], "washer", "2", {}), tmp_path / "sweep"
    store_plan(place, plan)
    store_plan(place, make_plan([patchcore], "washer", "2", {}))
    assert jobs(read_plan(place)) == jobs(plan) and config_of(read_plan(place), jobs(plan)[1]) == config_of(plan, jobs(plan)[1])
    before = (place / "sweep.json").read_bytes()
    for other in (make_plan([patchcore], "wood", "2", {}), make_plan([patchcore], "washer", "3", {})):
        with pytest.raises(UserError, match="holds another sweep .*give another --workdir"):
            store_plan(place, other)
    assert (place / "sweep.json").read_bytes() == before
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/config.json").write_text("{}")
    with pytest.raises(UserError, match="holds other files .config.json. and no sweep"):
        store_plan(tmp_path / "runs", plan)
    with pytest.raises(UserError, match="holds no sweep yet"):
        read_plan(tmp_path / "runs")
    (place / "sweep.json").write_text('{"seeds": 3}')
    with pytest.raises(UserError, match="holds no plan"):
        read_plan(place)


def test_of_several_writers_one_writes(tmp_path):
    file, wrote = tmp_path / "file.json", []
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        if once(file, {"number": number}):
            wrote.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wrote) == 1 and json.loads(file.read_text()) == {"number": wrote[0]}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
