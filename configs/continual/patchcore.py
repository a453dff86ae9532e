"""PatchCore (Roth et al., CVPR 2022), one category after another; the old coreset is all that is left of the past.

    python scripts/train.py --config=configs/continual/patchcore.py:synthetic
    python scripts/train.py --config=configs/continual/patchcore.py:mvtec_ad --config.data.root=DIR

Published (MVTec AD, 15 tasks, IM-IAD, Xie et al. 2023): image AUROC 0.919, pixel AUROC 0.944, PRO 0.847 after the last task,
forgetting 0.003, 0.002 and 0.001. The protocol here for mvtec_ad is that of their own PatchCore: 256 x 256 without crop,
average pooling, eq. 7 with 9 neighbours, no held-out images (so no threshold is fitted; add --config.threshold.holdout=0.1 for
one). Their files name coresets of 0.1 and of 0.001, and the table does not say which it took; here it is 0.1. They join the
coresets of all tasks; here the next coreset is one of the old rows and the new ones.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "synthetic"):
    """`arg`: as that of configs/unsupervised/patchcore.py; all categories if it names none."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/patchcore.py'}:{arg}")
    config.protocol.name = "continual"
    config.data.category = config.data.category or "all"
    if config.data.name == "mvtec_ad":
        # the protocol of IM-IAD
        config.data.update({"resize": 256, "crop": 0})
        config.detector.update({"embedding": "pool", "reweight": True, "num_neighbors": 9})
        config.threshold.holdout = 0.0
    return config
