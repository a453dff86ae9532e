"""DevNet (Pang et al., 2021): many normal and a few labelled anomalous images.

    python scripts/train.py --config=configs/supervised/devnet.py:smoke
    python scripts/train.py --config=configs/supervised/devnet.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/devnet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/devnet.py:folder --config.data.root=DIR

Published for the protocol here, that of DevNet's authors: no mean over MVTec AD that we know of. It is ResNet-18, 448 x 448, 10
labelled anomalies, general setting, 50 epochs of 20 steps, batches of 48, half of them anomalies, rotations by up to 180
degrees. IM-IAD (Xie et al. 2023) print an image AUROC of 0.871 for another one: 30 epochs, no rotation, batches that are not
balanced.

No training images are held out for mvtec_ad, as in the authors' code, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("devnet", "synthetic" if smoke else dataset)
    config.protocol.update({"name": "supervised", "num_anomalies": 10})
    config.data.update({"resize": 448, "batch_size": 48})
    config.backbone.name = "resnet18"
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "batch_size": 12})
        config.backbone.name = "filter_bank"
        config.detector.update({"layers": ("layer1", "layer2"), "steps": 200, "decay_every": 150, "learning_rate": 1e-2})
    if dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "batch_size": 12})
        config.detector.layers = ("layer3",)
    return config
