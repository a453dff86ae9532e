"""DDAD (Mousakhan et al., GCPR 2024), one model per category.

    python scripts/train.py --config=configs/unsupervised/ddad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/ddad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ddad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ddad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. For it the authors choose by category: detector.guidance from 0 to 11, detector.epochs
from 1000 to 3000, detector.adapt_epochs from 0 to 16. Their table is in the README of github.com/arimousa/DDAD. Here all
categories have one setting, the default of their configuration. They crop maps to the middle 224 pixels before they measure.

The wide ResNet-101 of the row has no file of weights here: give one with --config.backbone.weights=FILE, or another backbone.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.998, "pixel_auroc": 0.981, "aupro": 0.923},
        "github.com/arimousa/DDAD, README",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 32,
            "detector.width": 64,
            "detector.start": 250,
            "detector.skip": 25,
            "threshold.holdout": 0.0,
        },
        "wide ResNet-101; guidance and epochs of both networks by category; maps cropped to 224",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ddad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (16,), "adapt_epochs": 0, "weight_decay": 0.0}
        small |= {"layers": ("layer1", "layer2"), "compared": ("layer1", "layer2"), "learning_rate": 1e-3}
        # the filters compare little on such small images: pixels count more
        small |= {"pixel_weight": 7.0, "sigma": 0.0}
        # one category has few images
        quick(config, small | {"epochs": 40 if wanted.category else 4}, resize=32, batch_size=8)
    return finish(config, wanted)
