"""PNI (Bae et al., ICCV 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/pni.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/pni.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/pni.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/pni.py:folder --config.data.root=DIR

Published figures (mvtec_ad: image AUROC 0.996, pixel AUROC 0.990, AU-PRO 0.961) are of a refinement network that was trained
on images that are not published. They are no row of this config. The authors' code states no licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("pni", wanted.dataset)
    config.data.update({"resize": 512, "crop": 480, "batch_size": 4})
    config.backbone.name = "wide_resnet101_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "crop": 0})
        config.backbone.name = "resnet18"
    if wanted.quick:
        small = {"patch_size": 3, "pretrain_dimension": 64, "target_dimension": 64, "coreset_ratio": 0.05, "sigma": 2.0}
        network = {"distribution_size": 256, "reach": 2, "mlp_layers": 3, "hidden": 128, "epochs": 6}
        refinement = {"refine_steps": 60, "refine_width": 16, "refine_halvings": 3, "refine_learning_rate": 1e-3}
        quick(config, small | network | refinement, batch_size=8)
    return finish(config, wanted)
