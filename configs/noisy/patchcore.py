"""PatchCore (Roth et al., CVPR 2022) with anomalies among its training images, which pass for normal.

    python scripts/train.py --config=configs/noisy/patchcore.py:synthetic:washer
    python scripts/train.py --config=configs/noisy/patchcore.py:mvtec_ad:bottle --config.data.root=DIR

Published (MVTec AD mean, IM-IAD, Xie et al. 2023, table XII, 9 neighbours in eq. 7): image AUROC 0.990, 0.983, 0.986 and 0.982
at ratios of 0.05, 0.10, 0.15 and 0.20 (--config.protocol.noise_ratio).

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "synthetic"):
    """`arg`: as that of configs/unsupervised/patchcore.py."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/patchcore.py'}:{arg}")
    config.protocol.update({"name": "noisy", "noise_ratio": 0.1})
    return config
