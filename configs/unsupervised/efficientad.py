"""EfficientAD-S (Batzner et al., WACV 2024), one model per category; -M with --config.backbone.name=pdn_medium.

    python scripts/train.py --config=configs/unsupervised/efficientad.py:smoke
    python scripts/train.py --config=configs/unsupervised/efficientad.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/efficientad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/efficientad.py:folder --config.data.root=DIR

Published (MVTec AD mean, 256 x 256, 70,000 steps of one image, Adam 1e-4): image AUROC 0.988 (-S) and 0.991 (-M) (paper, table
1). A tenth of the training images is held out for the quantiles of the maps (`threshold.holdout`). The teacher comes from
scripts/distill.py (--config.backbone.weights=FILE), the penalty images from ImageNet (--config.detector.penalty_images=DIR).

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic fabric, a minute on two cores; "smoke:all" takes two), or "mvtec_ad:category",
    "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("efficientad", "synthetic" if smoke else dataset)
    config.data.update({"resize": 256, "batch_size": 1})
    config.backbone.name = "pdn_small"
    # calibrates the maps, and the threshold too
    config.threshold.holdout = 0.1
    if category or smoke:
        config.data.category = category or "fabric"
    if smoke:
        config.data.update({"resize": 128, "batch_size": 1})
        config.backbone.update({"name": "pdn_small", "weights": "random"})
        config.detector.update({"steps": 8, "learning_rate": 5e-4})
    return config
