"""NSA (Schlüter et al., ECCV 2022), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/nsa.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/nsa.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/nsa.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/nsa.py:folder --config.data.root=DIR

Published figures (mvtec_ad: image AUROC 0.972, pixel AUROC 0.963, AU-PRO 0.910, means of five seeds) are of settings for each
category: bounds of patches, their number, labels, backgrounds, crops and rotations, 320 or 560 epochs. They are no row of this
config, which has one setting. Textures have --config.detector.mixed=True, four patches and a resize of (0.5, 2). The authors'
code (github.com/hmsch/natural-synthetic-anomalies) is under the MIT licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("nsa", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 64})
    if wanted.quick:
        small = {"width": 16, "label": "binary", "learning_rate": 2e-3, "epochs": 80 if wanted.category else 8}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
