"""RD4AD (Deng & Li, CVPR 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/rd4ad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rd4ad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The authors' PRO is a mean over single images; ours pools all images.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.985, "pixel_auroc": 0.978, "aupro": 0.939},
        "arXiv 2201.10703, tables 1 and 2",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 16,
            "backbone.name": "wide_resnet50_2",
            "detector.epochs": 200,
            "detector.learning_rate": 0.005,
            "threshold.holdout": 0.0,
        },
        "PRO as a mean over single images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("rd4ad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.data.batch_size = 8
    if wanted.quick:
        # one category has few images
        quick(config, {"epochs": 250 if wanted.category else 10}, batch_size=8)
    return finish(config, wanted)
