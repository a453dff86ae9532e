"""DRAEM (Zavrtanik et al., ICCV 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/draem.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/draem.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/draem.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/draem.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The row needs DTD: give it with --config.detector.textures=DIR; without it textures are
drawn. The authors read images in the order BGR and shrink them without antialiasing; here they are RGB, antialiased.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.980, "pixel_auroc": 0.973, "pixel_ap": 0.684},
        "arXiv 2108.07610, tables 1 and 2",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 8,
            "detector.epochs": 700,
            "detector.learning_rate": 1e-4,
            "threshold.holdout": 0.0,
        },
        "textures of DTD (detector.textures=DIR)",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("draem", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 16, "segment_width": 16, "learning_rate": 2e-3, "pool_size": 5}
        # one category has few images
        quick(config, small | {"epochs": 20 if wanted.category else 2}, resize=64, batch_size=8)
    return finish(config, wanted)
