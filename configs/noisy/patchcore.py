"""PatchCore (Roth et al., CVPR 2022) with anomalies among its training images, which pass for normal.

    python scripts/train.py --config=configs/noisy/patchcore.py:synthetic:washer
    python scripts/train.py --config=configs/noisy/patchcore.py:mvtec_ad:bottle --config.data.root=DIR

Published (MVTec AD mean, IM-IAD, Xie et al. 2023, table XII, 9 neighbours in eq. 7): image AUROC 0.990, 0.983, 0.986 and 0.982
at ratios of 0.05, 0.10, 0.15 and 0.20 (--config.protocol.noise_ratio). The protocol here for mvtec_ad is that of their own
PatchCore: 256 x 256 without crop, average pooling, eq. 7 with 9 neighbours, no held-out images (so no threshold is fitted; add
--config.threshold.holdout=0.1 for one). Their files name coresets of 0.1 and of 0.001, and the table does not say which it
took; here it is 0.1.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "synthetic"):
    """`arg`: as that of configs/unsupervised/patchcore.py."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/patchcore.py'}:{arg}")
    config.protocol.update({"name": "noisy", "noise_ratio": 0.1})
    if config.data.name == "mvtec_ad":
        # the protocol of IM-IAD
        config.data.update({"resize": 256, "crop": 0})
        config.detector.update({"embedding": "pool", "reweight": True, "num_neighbors": 9})
        config.threshold.holdout = 0.0
    return config
