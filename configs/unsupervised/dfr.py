"""DFR (Shi, Yang & Qi, Neurocomputing 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/dfr.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/dfr.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dfr.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dfr.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, from secondary pages. The authors read images of 256 pixels by nearest neighbours;
here they are antialiased. Their code (github.com/YoungGod/DFR, which states no licence; nothing of it is here) has VGG-19 with
reflected borders, as here, 150 epochs, and judges the model every ten epochs.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.938, "pixel_auroc": 0.955},
        "arXiv 2012.07122, from secondary pages",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 4,
            "backbone.name": "vgg19_reflect",
            "detector.map_size": 256,
            "detector.pooling": 4,
            "detector.latent": 0,
            "detector.variance": 0.9,
            "detector.epochs": 700,
            "detector.learning_rate": 1e-4,
            "threshold.holdout": 0.0,
        },
        "images are resized by nearest neighbours",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("dfr", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 4})
    config.backbone.name = "vgg19_reflect"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"layers": ("layer1", "layer2", "layer3"), "map_size": 64, "pooling": 2, "learning_rate": 2e-3}
        quick(config, small | {"epochs": 20 if wanted.category else 4}, batch_size=8)
    return finish(config, wanted)
