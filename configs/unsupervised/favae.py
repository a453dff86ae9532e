"""FAVAE (Dehaene & Eline, 2020), one model per category.

    python scripts/train.py --config=configs/unsupervised/favae.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/favae.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/favae.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/favae.py:folder --config.data.root=DIR

Published figures are those of IM-IAD (arXiv 2301.13359; mvtec_ad: image AUROC 0.793, pixel AUROC 0.889, AU-PRO 0.749). Its
paper and its code (open-iad, which states no licence; nothing of it is here) differ in the rate and in the size of images, so
they are no row of this config.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("favae", wanted.dataset)
    config.data.update({"resize": 128, "batch_size": 64})
    config.backbone.name = "vgg16"
    if wanted.quick:
        small = {"layers": ("layer1", "layer2"), "width": 16, "latent": 32, "learning_rate": 2e-3}
        quick(config, small | {"epochs": 40 if wanted.category else 4}, resize=64, batch_size=8)
    return finish(config, wanted)
