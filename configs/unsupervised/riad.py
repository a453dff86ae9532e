"""RIAD (Zavrtanik et al., Pattern Recognition 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/riad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/riad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/riad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/riad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, from a summary of the paper. The authors stop early by held-out images; here the last
epoch counts. The network and the constants are those of the known re-implementation, github.com/plutoyuxie/Reconstruction-by-
inpainting-for-visual-anomaly-detection, which states no licence; nothing of it is here.

No training images are held out for mvtec_ad, so no threshold is fitted there: add --config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.917, "pixel_auroc": 0.942},
        "Zavrtanik et al., Pattern Recognition 112, 2021, from secondary pages",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 8,
            "detector.cell_sides": (2, 4, 8, 16),
            "detector.num_sets": 3,
            "detector.epochs": 300,
            "detector.learning_rate": 1e-4,
            "detector.window": 21,
            "threshold.holdout": 0.0,
        },
        "the authors stop early by a fifth of the training images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("riad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {
            "width": 16,
            "cell_sides": (2, 4, 8),
            "learning_rate": 2e-3,
            "window": 5,
            "epochs": 30 if wanted.category else 3,
        }
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
