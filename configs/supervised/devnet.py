"""DevNet (Pang et al., 2021): many normal and a few labelled anomalous images.

    python scripts/train.py --config=configs/supervised/devnet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/supervised/devnet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/devnet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/devnet.py:folder --config.data.root=DIR

Published for the protocol here, that of DevNet's authors: no mean over MVTec AD that we know of. It is ResNet-18, 448 x 448, 10
labelled anomalies, general setting, 50 epochs of 20 steps, batches of 48, half of them anomalies, rotations by up to 180
degrees. The figures of IM-IAD are of another protocol, so none stand here.

No training images are held out for mvtec_ad, as in the authors' code, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("devnet", wanted.dataset)
    config.protocol.update({"name": "supervised", "num_anomalies": 10})
    config.data.update({"resize": 448, "batch_size": 48})
    config.backbone.name = "resnet18"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "batch_size": 12})
        config.detector.layers = ("layer3",)
    if wanted.quick:
        small = {"layers": ("layer1", "layer2"), "steps": 200, "decay_every": 150, "learning_rate": 1e-2}
        quick(config, small, batch_size=12)
    return finish(config, wanted)
