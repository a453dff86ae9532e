"""PaDiM (Defard et al., ICPR 2021) without training images: its Gaussians are those of the unlabelled test images.

    python scripts/train.py --config=configs/zero_shot/padim.py:smoke:washer
    python scripts/train.py --config=configs/zero_shot/padim.py:mvtec_ad:bottle --config.data.root=DIR

Nothing is published for PaDiM in this setting ("batched zero-shot"); it rests on most test patches being normal.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "smoke"):
    """`arg`: as that of configs/unsupervised/padim.py."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/padim.py'}:{arg}")
    config.protocol.update({"name": "zero_shot", "test_batch": True})
    return config
