"""VT-ADL (Mishra et al., ISIE 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/vtadl.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/vtadl.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/vtadl.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/vtadl.py:folder --config.data.root=DIR

Published figures (mvtec_ad: PRO 0.807) are known here from secondary pages alone, and what the authors' code prints as PRO is
the AUROC of all pixels. They are no row of this config. Nothing of that code, github.com/pankajmishra000/VT-ADL (MIT), is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("vtadl", wanted.dataset)
    config.data.update({"resize": 550, "crop": 512, "batch_size": 8})
    if wanted.quick:
        small = {
            "patch": 8,
            "dim": 128,
            "depth": 1,
            "heads": 4,
            "hidden": 128,
            "widths": (32, 16),
            "kernels": (4, 4, 4),
            "strides": (2, 2, 2),
            "paddings": (1, 1, 1),
            "gaussians": 4,
            "learning_rate": 1e-3,
            "sigma": 2.0,
            "epochs": 80 if wanted.category else 6,
        }
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
