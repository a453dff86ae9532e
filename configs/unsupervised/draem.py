"""DRAEM (Zavrtanik et al., ICCV 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/draem.py:smoke
    python scripts/train.py --config=configs/unsupervised/draem.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/draem.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/draem.py:folder --config.data.root=DIR

Published (MVTec AD mean, 256 x 256, 700 epochs, batch 8, Adam 1e-4, DTD textures): image AUROC 0.980, pixel AUROC 0.973, pixel
AP 0.684 (paper, tables 1 and 2). The row needs DTD: give it with --config.detector.textures=DIR; without it textures are drawn.
The authors read images in the order BGR and shrink them without antialiasing; here they are RGB, antialiased.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("draem", "synthetic" if smoke else dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 64, "batch_size": 8})
        config.detector.update({"width": 16, "segment_width": 16, "epochs": 2, "learning_rate": 2e-3, "pool_size": 5})
    if dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    return config
