"""U-Flow (Tailanian et al., JMIV 2024), one model per category.

    python scripts/train.py --config=configs/unsupervised/uflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/uflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/uflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/uflow.py:folder --config.data.root=DIR

Published figures (mvtec_ad, pixel AUROC 0.987) are of two CaiTs, with a rate and a batch for each category and the epoch
selected on the test set. They are no row of this config, which has the default schedule of the authors' code and a ResNet.
Their code is under AGPL-3; nothing of it is here.

A threshold without held-out images, where one false alarm is expected in a normal image:
--config.detector.scores=nfa --config.threshold.name=a_contrario --config.threshold.holdout=0

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("uflow", wanted.dataset)
    config.data.update({"resize": 448, "batch_size": 8})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
        config.backbone.name = "resnet18"
    if wanted.quick:
        quick(config, {"flow_steps": 2, "epochs": 40, "learning_rate": 2e-3}, batch_size=8)
    return finish(config, wanted)
