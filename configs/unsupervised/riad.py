"""RIAD (Zavrtanik et al., Pattern Recognition 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/riad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/riad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/riad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/riad.py:folder --config.data.root=DIR

Published figures (mvtec_ad: image AUROC 0.917, pixel AUROC 0.942) are known here from secondary pages alone. They are no row of
this config, which has the paper's schedule without its early stop on held-out images. The network and the constants are those
of the known re-implementation, github.com/plutoyuxie/Reconstruction-by-inpainting-for-visual-anomaly-detection, which states no
licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("riad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
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
