"""SimpleNet (Liu et al., CVPR 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/simplenet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/simplenet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/simplenet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/simplenet.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. Here the last of the 40 x 4 epochs counts.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.996, "pixel_auroc": 0.981},
        "arXiv 2303.15140, table 1",
        {
            "data.resize": 329,
            "data.crop": 288,
            "data.batch_size": 8,
            "backbone.name": "wide_resnet50_2",
            "detector.pretrain_dimension": 1536,
            "detector.target_dimension": 1536,
            "detector.epochs": 160,
            "threshold.holdout": 0.0,
        },
        "best of 40 evaluations of the test set",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("simplenet", wanted.dataset)
    config.data.update({"resize": 329, "crop": 288, "batch_size": 8})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "crop": 0})
        config.backbone.name = "resnet18"
        config.detector.update({"pretrain_dimension": 384, "target_dimension": 384})
    if wanted.quick:
        small = {"layers": ("layer1", "layer2"), "pretrain_dimension": 96, "target_dimension": 96, "hidden": 256}
        # one category has few images
        small["epochs"] = 20 if wanted.category else 9
        quick(config, small | {"adaptor_rate": 1e-3, "discriminator_rate": 1e-3, "noise_std": 0.1}, batch_size=8)
    return finish(config, wanted)
