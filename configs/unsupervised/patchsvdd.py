"""Patch SVDD (Yi & Yoon, ACCV 2020), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/patchsvdd.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/patchsvdd.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchsvdd.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchsvdd.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The authors choose lambda (detector.svdd_weight) for each category and evaluate on
the test images after each epoch; the config has the lambda of their README. Every step takes one pair of each kind from 64
images; data.batch_size=4 with detector.pairs=16 reads fewer images for a step of the same size.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.921, "pixel_auroc": 0.957},
        "arXiv 2006.16067, table of MVTec AD results, from secondary pages",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 64,
            "detector.dimension": 64,
            "detector.pairs": 1,
            "detector.epochs": 29900,
            "detector.learning_rate": 1e-4,
            "detector.small_stride": 4,
            "detector.big_stride": 16,
            "detector.combine": "product",
            "threshold.holdout": 0.0,
        },
        "lambda by category; best epoch on the test set",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("patchsvdd", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 64})
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        # patches of 16 and 32 pixels: the same part of the smaller image
        # too few steps for the position task, whose loss stays at ln 8: embeddings stay near those of drawn weights
        small = {"widths": (16, 32, 32), "dimension": 32, "pairs": 8, "epochs": 40, "learning_rate": 1e-3}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
