"""InTra (Pirnay & Chai, ICIAP 2022), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/intra.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/intra.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/intra.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/intra.py:folder --config.data.root=DIR

Published figures (mvtec_ad: image AUROC 0.950, pixel AUROC 0.966) have image sizes of 256, 320 or 512 by category, 600 patches
of each image in an epoch, and an early stop on held-out images. They are no row of this config, which has one size and a fixed
schedule. The network and the constants are those of the known re-implementation, github.com/jhy12/inpainting-transformer, which
states no licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("intra", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.quick:
        small = {
            "side": 8,
            "length": 5,
            "d": 64,
            "blocks": 4,
            "heads": 4,
            "windows": 8,
            "learning_rate": 1e-3,
            "pool_size": 5,
            "epochs": 60 if wanted.category else 6,
        }
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
