"""MSC (Reiss & Hoshen, AAAI 2023), one model per category; it does not localise.

    python scripts/train.py --config=configs/unsupervised/msc.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/msc.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/msc.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/msc.py:folder --config.data.root=DIR

Published: no row stands here, because the paper's table for MVTec AD was not at hand; secondary pages have an image AUROC of
0.872. The protocol is ResNet-152, resize 256, crop 224, batches of 64 and 20 epochs.

No training images are held out for mvtec_ad, as in the paper, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("msc", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 64})
    config.backbone.name = "resnet152"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
    if wanted.quick:
        quick(config, {"layers": ("layer1", "layer2"), "trained": ("layer2",), "epochs": 5}, batch_size=16)
        # a bank of filters has nothing to adapt
        config.backbone.update({"name": "resnet18", "weights": "random"})
    return finish(config, wanted)
