"""DAAD (Hou et al., ICCV 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/daad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/daad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/daad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/daad.py:folder --config.data.root=DIR

Published for mvtec_ad is an image AUROC of 0.895 (a figure of compilations). The authors' constants are not known: there is no
code, and all constants here are ours. So it is no row of this config.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

# the protocol of the published figure is not known
PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("daad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    if wanted.quick:
        small = {
            "width": 16,
            "block_sides": (4, 2, 1),
            "items": 100,
            "shrink": 0.01,
            "discriminator_width": 8,
            "epochs": 60,
            "learning_rate": 1e-3,
        }
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
