"""Gaussian-AD (Rippel et al., ICPR 2020), one model per category; it does not localise.

    python scripts/train.py --config=configs/unsupervised/gaussian_ad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/gaussian_ad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/gaussian_ad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/gaussian_ad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, the mean over five folds of the training images. Each fold leaves out a fifth of them,
which is held out here for the threshold. The authors' code is under AGPL-3; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.958},
        "arXiv 2005.14140, abstract",
        {
            "data.resize": 380,
            "data.crop": 0,
            "backbone.name": "efficientnet_b4_static",
            "detector.layers": ("stem", *(f"stage{i}" for i in range(1, 8)), "head"),
            "detector.reduce": "none",
            "threshold.holdout": 0.2,
        },
        "mean over five folds of the training images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("gaussian_ad", wanted.dataset)
    config.data.update({"resize": 380, "batch_size": 16})
    config.backbone.name = "efficientnet_b4_static"
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.2
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    if wanted.quick:
        quick(config, {"layers": ("layer1", "layer2", "layer3")}, batch_size=16)
    return finish(config, wanted)
