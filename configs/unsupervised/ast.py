"""AST (Rudolph et al., WACV 2023), one model per category, of images alone.

    python scripts/train.py --config=configs/unsupervised/ast.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/ast.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ast.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ast.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, of the paper's table, which does not say whether an image's score is the mean or the
maximum of its map. The README of the authors' code states the MIT licence; nothing of it is here.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.992, "pixel_auroc": 0.950},
        "arXiv 2210.07829, tables of MVTec AD",
        {
            "data.resize": 768,
            "data.crop": 0,
            "data.batch_size": 8,
            "backbone.name": "efficientnet_b5_static",
            "detector.layer": "stage6",
            "detector.coupling_blocks": 4,
            "detector.student_blocks": 4,
            "detector.epochs": 72,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ast", wanted.dataset)
    config.data.update({"resize": 768, "batch_size": 8})
    config.backbone.name = "efficientnet_b5_static"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
    if wanted.quick:
        small = {"layer": "layer2", "coupling_blocks": 2, "teacher_hidden": 32, "student_blocks": 2, "student_hidden": 64}
        quick(config, small | {"epochs": 12, "learning_rate": 2e-3, "scores": "max"}, batch_size=8)
    return finish(config, wanted)
