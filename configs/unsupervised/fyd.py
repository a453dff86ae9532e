"""FYD, Focus Your Distribution (Zheng et al., ICME 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/fyd.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/fyd.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fyd.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fyd.py:folder --config.data.root=DIR

Reference: the abstract of arXiv 2110.04538; no code of the authors was found, and all constants are ours. Published for
mvtec_ad: image AUROC 0.977, pixel AUROC 0.982, on secondary pages only and under an unknown protocol, so that no row quotes it.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("fyd", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 16})
    config.backbone.name = "resnet18"
    if wanted.quick:
        # one category has few images
        quick(config, {"epochs": 20 if wanted.category else 4, "layers": ("layer1", "layer2"), "width": 32}, batch_size=8)
    return finish(config, wanted)
