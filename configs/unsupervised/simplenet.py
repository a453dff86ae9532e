"""SimpleNet (Liu et al., CVPR 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/simplenet.py:smoke
    python scripts/train.py --config=configs/unsupervised/simplenet.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/simplenet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/simplenet.py:folder --config.data.root=DIR

Published (MVTec AD mean, Wide ResNet-50-2, resize 329, crop 288, 40 x 4 epochs, batch 8): image AUROC 0.996, pixel AUROC 0.981
(paper, table 1; both at the best of 40 evaluations of the test set).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("simplenet", "synthetic" if smoke else dataset)
    config.data.update({"resize": 329, "crop": 288, "batch_size": 8})
    config.backbone.name = "wide_resnet50_2"
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "crop": 0, "batch_size": 8})
        config.backbone.name = "filter_bank"
        config.detector.update({"layers": ("layer1", "layer2"), "pretrain_dimension": 96, "target_dimension": 96})
        config.detector.update({"hidden": 256, "epochs": 9, "adaptor_rate": 1e-3, "discriminator_rate": 1e-3, "noise_std": 0.1})
    if dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "crop": 0})
        config.backbone.name = "resnet18"
        config.detector.update({"pretrain_dimension": 384, "target_dimension": 384})
    return config
