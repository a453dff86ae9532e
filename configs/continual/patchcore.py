"""PatchCore (Roth et al., CVPR 2022), one category after another; the old coreset is all that is left of the past.

    python scripts/train.py --config=configs/continual/patchcore.py:synthetic
    python scripts/train.py --config=configs/continual/patchcore.py:mvtec_ad --config.data.root=DIR

Published (MVTec AD, 15 tasks, IM-IAD, Xie et al. 2023): image AUROC 0.919, pixel AUROC 0.944, PRO 0.847 after the last task,
forgetting 0.003, 0.002 and 0.001.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "synthetic"):
    """`arg`: as that of configs/unsupervised/patchcore.py; all categories if it names none."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/patchcore.py'}:{arg}")
    config.protocol.name = "continual"
    config.data.category = config.data.category or "all"
    return config
