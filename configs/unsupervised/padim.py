"""PaDiM (Defard et al., ICPR 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/padim.py:smoke
    python scripts/train.py --config=configs/unsupervised/padim.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/padim.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/padim.py:folder --config.data.root=DIR

Published (MVTec AD mean, Wide ResNet-50-2, resize 256, crop 224, 550 of 1792 channels): image AUROC 0.953 (0.979 with
EfficientNet-B5), pixel AUROC 0.975 (paper).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("padim", "synthetic" if smoke else dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    config.detector.num_channels = 550
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "crop": 0, "batch_size": 16})
        config.backbone.name = "filter_bank"
        config.detector.num_channels = 0
    if dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.data.crop = 0
        config.backbone.name = "resnet18"
        config.detector.num_channels = 100
    return config
