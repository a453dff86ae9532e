"""RD4AD (Deng & Li, CVPR 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/rd4ad.py:smoke
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:folder --config.data.root=DIR

Published (MVTec AD mean, Wide ResNet-50-2, 256 x 256, 200 epochs, batch 16, Adam 0.005): image AUROC 0.985, pixel AUROC 0.978,
PRO 0.939 (paper, tables 1 and 2). The authors' PRO is a mean over single images; ours pools all images.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("rd4ad", "synthetic" if smoke else dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    config.backbone.name = "wide_resnet50_2"
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "batch_size": 8})
        config.backbone.name = "filter_bank"
        config.detector.epochs = 10
    if dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.data.batch_size = 8
    return config
