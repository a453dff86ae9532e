"""Every config file: it opens with its run command and says what is published and measured, and all its variants hold."""

import re
from pathlib import Path

import pytest

from iadjax import data, detectors
from iadjax.config import load_config, outline_model, resolve

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*/*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_config_says_how_it_is_run_and_holds(file):
    text = file.read_text(encoding="utf-8")
    head = text.split('"""')[1]
    name = file.relative_to(FOLDER.parent).as_posix()
    commands = re.findall(rf"python scripts/train.py --config={name}:(\S+)", head)
    assert commands and "ublished" in head and "Measured here" in head
    for argument in (*commands, ""):
        config = resolve(load_config(f"{file}:{argument}" if argument else str(file)))
        assert config["data"]["name"] in data.NAMES and config["detector"]["name"] == file.stem
        # the detector takes its options on its networks
        outline_model(config)


def test_every_detector_has_a_config():
    assert {file.stem for file in FILES} == set(detectors.MODULES)


# what the header of each config quotes, for mvtec_ad: the keys of the published protocol; `threshold.holdout` is 0 elsewhere
IM_IAD = {
    "data.resize": 256,
    "data.crop": 0,
    "detector.embedding": "pool",
    "detector.reweight": True,
    "detector.num_neighbors": 9,
}
WIDE = {"backbone.name": "wide_resnet50_2"}
QUOTED = {
    "continual/patchcore": IM_IAD | WIDE | {"data.category": "all", "detector.coreset_ratio": 0.1},
    "few_shot/anomalydino": {
        "data.resize": 448,
        "data.resize_side": "shorter",
        "data.interpolation": "bicubic",
        "data.crop_multiple": 14,
        "backbone.name": "dinov2_vits14",
        "protocol.num_shots": 1,
        "protocol.shots_by_name": True,
        "protocol.rotations": 8,
        "detector.rotations": 1,
        "detector.top": 0.01,
    },
    "few_shot/patchcore": IM_IAD | WIDE | {"protocol.rotations": 5},
    "multi_class/uniad": {
        "data.category": "all",
        "data.resize": 224,
        "data.crop": 0,
        "data.batch_size": 64,
        "backbone.name": "efficientnet_b4_static",
        "protocol.name": "multi_class",
        "detector.epochs": 1000,
        "detector.learning_rate": 1e-4,
        "detector.decay_at": 0.8,
    },
    "noisy/patchcore": IM_IAD | WIDE | {"detector.coreset_ratio": 0.1},
    "supervised/devnet": {
        "data.resize": 448,
        "data.batch_size": 48,
        "backbone.name": "resnet18",
        "protocol.num_anomalies": 10,
        "detector.steps": 1000,
        "detector.anomaly_fraction": 0.5,
        "detector.rotation": 180.0,
    },
    "unsupervised/draem": {"data.resize": 256, "data.crop": 0, "data.batch_size": 8, "detector.epochs": 700},
    "unsupervised/efficientad": {
        "data.resize": 256,
        "data.crop": 0,
        "data.batch_size": 1,
        "backbone.name": "pdn_small",
        "detector.steps": 70000,
        # the authors' maps are calibrated on held-out images
        "threshold.holdout": 0.1,
    },
    "unsupervised/fastflow": WIDE
    | {
        "data.resize": 256,
        "data.crop": 0,
        "data.batch_size": 32,
        "backbone.weights": "timm/wide_resnet50_2.racm_in1k",
        "detector.conv3x3_only": False,
        "detector.epochs": 500,
    },
    "unsupervised/padim": WIDE | {"data.resize": 256, "data.crop": 224, "detector.num_channels": 550},
    "unsupervised/patchcore": WIDE
    | {
        "data.resize": 256,
        "data.crop": 224,
        "detector.layers": ["layer2", "layer3"],
        "detector.embedding": "unfold",
        "detector.pretrain_dimension": 1024,
        "detector.target_dimension": 1024,
        "detector.coreset_ratio": 0.1,
        "detector.reweight": False,
    },
    "unsupervised/rd4ad": WIDE | {"data.resize": 256, "data.crop": 0, "data.batch_size": 16, "detector.epochs": 200},
    "unsupervised/simplenet": WIDE
    | {
        "data.resize": 329,
        "data.crop": 288,
        "data.batch_size": 8,
        "detector.pretrain_dimension": 1536,
        "detector.target_dimension": 1536,
        "detector.epochs": 160,
    },
}


def test_every_config_that_quotes_figures_has_a_row():
    names = {f"{file.parent.name}/{file.stem}" for file in FILES}
    # nothing is published for PaDiM on unlabelled test images
    assert set(QUOTED) == names - {"zero_shot/padim"}


@pytest.mark.parametrize("name", QUOTED)
def test_a_config_holds_the_protocol_of_the_figures_that_it_quotes(name):
    config = resolve(load_config(f"{FOLDER / name}.py:mvtec_ad"))
    for key, value in ({"threshold.holdout": 0.0} | QUOTED[name]).items():
        section, option = key.split(".")
        assert config[section][option] == value, key


@pytest.mark.parametrize(("argument", "masking"), [("mvtec_ad:pill", True), ("mvtec_ad:bottle", False), ("visa:pcb1", True)])
def test_anomalydino_masks_where_the_authors_do(argument, masking):
    assert load_config(f"{FOLDER}/few_shot/anomalydino.py:{argument}").detector.masking == masking
