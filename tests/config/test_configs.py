"""Every config file: it opens with its run command, holds the protocol of the rows that it quotes, and `quick` shrinks it."""

import re
import shutil
from pathlib import Path

import jax
import pytest

from iadjax import data, detectors
from iadjax.config import Row, differences, find_config, load_config, outline_model, published, resolve, shipped
from iadjax.detector import embed_shapes
from iadjax.errors import UserError

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*/*.py"))
NAMES = [f"{file.parent.name}/{file.name}" for file in FILES]
# nothing is published for PaDiM on unlabelled test images, for AnoDDPM and GANomaly on these data sets, nor for the protocol of
# DevNet's authors; figures of SuperAD and SuperADD rest on masks of their own
WITHOUT_ROWS = {
    "supervised/devnet.py",
    "unsupervised/ae.py",
    "unsupervised/daad.py",
    "unsupervised/favae.py",
    "unsupervised/fyd.py",
    "unsupervised/nsa.py",
    "unsupervised/anoddpm.py",
    "unsupervised/ganomaly.py",
    "unsupervised/intra.py",
    "unsupervised/mstunet.py",
    "unsupervised/msc.py",
    "unsupervised/panda.py",
    "unsupervised/pni.py",
    "unsupervised/pyramidflow.py",
    "unsupervised/rgi.py",
    "unsupervised/riad.py",
    "unsupervised/scadn.py",
    "unsupervised/score_based.py",
    "unsupervised/superad.py",
    "unsupervised/superadd.py",
    "unsupervised/uflow.py",
    "unsupervised/vae.py",
    "unsupervised/vtadl.py",
    "zero_shot/padim.py",
}
ROWS = [(name, number) for name in NAMES for number in range(len(published(name)))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_config_says_how_it_is_run_and_holds(file):
    text = file.read_text(encoding="utf-8")
    head = text.split('"""')[1]
    name = file.relative_to(FOLDER.parent).as_posix()
    commands = re.findall(rf"python scripts/train.py --config={name}:(\S+)", head)
    assert commands and "ublished" in head and "Measured here" in head
    for argument in (*commands, "", "mvtec_ad,category=bottle,quick"):
        config = resolve(load_config(f"{file}:{argument}" if argument else str(file)))
        assert config["data"]["name"] in data.NAMES and config["detector"]["name"] == file.stem
        # the detector takes its options on its networks
        outline_model(config)
        assert config["quick"] == ("quick" in argument)
        if config["quick"]:
            # CLIP has random weights there, and so has the ResNet that CutPaste trains
            small = (None, "filter_bank", "pdn_small", "clip_vitb32", "resnet18")
            assert config["data"]["resize"] <= 128 and config.get("backbone", {}).get("name") in small


def test_every_detector_has_a_config():
    assert {file.stem for file in FILES} == set(detectors.MODULES)
    assert list(shipped()) == NAMES


def test_every_config_that_quotes_figures_has_a_row():
    assert {name for name in NAMES if not published(name)} == WITHOUT_ROWS


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_a_config_holds_the_protocol_of_the_figures_that_it_quotes(name, number):
    row = published(name)[number]
    assert row.metrics and all(0 < value < 1 for value in row.metrics.values())
    assert re.match(r"arXiv \d{4}\.\d{5}|github\.com/\w", row.source)
    # what a protocol at least fixes
    assert {"data.resize", "data.crop_multiple"} & set(row.protocol) and "threshold.holdout" in row.protocol
    config = resolve(load_config(f"{name}:{row.arg or row.dataset}"))
    assert differences(row, config) == {} and not config["quick"]
    quick = differences(row, resolve(load_config(f"{name}:{row.arg or row.dataset},quick")))
    assert "data.resize" in quick


def test_differences_name_the_key_and_both_values():
    row = Row("mvtec_ad", {"image_auroc": 0.9}, "arXiv 0000.00000", {"data.resize": 256, "detector.layers": ("layer1",)})
    same = {"data": {"name": "mvtec_ad", "resize": 256}, "detector": {"layers": ["layer1"]}}
    assert differences(row, same) == {}
    other = {"data": {"name": "visa", "resize": 128}, "detector": {}}
    assert differences(row, other) == {
        "data.name": ("mvtec_ad", "visa"),
        "data.resize": (256, 128),
        "detector.layers": (("layer1",), None),
    }


@pytest.mark.parametrize(
    ("argument", "masking"),
    [("mvtec_ad,category=pill", True), ("mvtec_ad,category=bottle", False), ("visa,category=pcb1", True)],
)
def test_anomalydino_masks_where_the_authors_do(argument, masking):
    assert load_config(f"{FOLDER}/few_shot/anomalydino.py:{argument}").detector.masking == masking


def test_shipped_configs_are_found_from_anywhere_and_copies_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("few_shot/patchcore.py", "configs/few_shot/patchcore.py"):
        assert find_config(f"{path}:mvtec_ad") == (FOLDER / "few_shot/patchcore.py", "mvtec_ad")
    # a copy that rests on another shipped config, in a folder of its own
    shutil.copy(FOLDER / "few_shot/patchcore.py", tmp_path / "mine.py")
    mine = load_config("mine.py:mvtec_ad,protocol.num_shots=1")
    assert mine == load_config("few_shot/patchcore.py:mvtec_ad,protocol.num_shots=1") and mine.protocol.num_shots == 1
    # a file of one's own at that path comes first
    (tmp_path / "few_shot").mkdir()
    (tmp_path / "few_shot/patchcore.py").write_text("PUBLISHED = [3]\n\ndef get_config():\n    return 'mine'\n")
    assert load_config("few_shot/patchcore.py") == "mine"
    with pytest.raises(UserError, match="must be a list of iadjax.config.Row"):
        published("few_shot/patchcore.py")
    with pytest.raises(UserError, match="there is no config file 'unsupervised/patchcor.py:x'.*did you mean"):
        load_config("unsupervised/patchcor.py:x")


@pytest.mark.parametrize("name", ["unsupervised/patchcore.py", "few_shot/anomalydino.py"])
def test_mvtec_ad_2_is_full_size_tiles_and_thresholds_from_normal_images(name):
    for dataset in ("mvtec_ad_2", "mvtec_ad_2_private"):
        config = resolve(load_config(f"{name}:{dataset},category=can"))
        assert config["data"]["category"] == "can" and config["data"]["resize"] == 0 and config["data"]["tile"] >= 448
        assert config["evaluate"]["eval_size"] == 0 and config["evaluate"]["save_maps"] == (dataset == "mvtec_ad_2_private")
        assert config["threshold"]["holdout"] > 0


@pytest.mark.parametrize("name", ["spade", "musc", "rad", "superad", "superadd"])
def test_a_class_token_of_another_layer_is_loaded_too(name):
    (config,) = (file for file in FILES if file.stem == name)
    model = outline_model(resolve(load_config(f"{config}:mvtec_ad,category=bottle").to_dict()))
    shape = (*(model.transform.tile or model.transform.geometry(1024, 1024).size), 3)
    assert jax.tree.leaves(embed_shapes(model.detector, model.frozen, shape))


@pytest.mark.parametrize("name", ["dfm", "fre", "pyramidflow"])
def test_of_a_network_no_more_is_loaded_than_the_one_layer_asked_for(name):
    config = resolve(load_config(f"{FOLDER / 'unsupervised' / name}.py:mvtec_ad,category=bottle").to_dict())
    config["backbone"] = {"name": "resnet18", "weights": "random"}
    stages = set(outline_model(config).frozen["backbone"]["params"])
    last = int(config["detector"]["layer"].removeprefix("layer"))
    assert {stage[:6] for stage in stages if stage.startswith("layer")} == {f"layer{i}" for i in range(1, last + 1)}
