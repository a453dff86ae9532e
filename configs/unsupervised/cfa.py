"""CFA (Lee, Lee & Song, IEEE Access 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/cfa.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/cfa.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cfa.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cfa.py:folder --config.data.root=DIR

Reference: github.com/sungwool/CFA_for_anomaly_localization (no licence; nothing is taken from it). Published for mvtec_ad:
PUBLISHED below. The authors' code reports the best epoch on the test images, for each metric another one; here it is the last
epoch.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.993, "pixel_auroc": 0.982},
        "arXiv 2206.04325",
        {
            "data.resize": 256,
            "data.crop": 224,
            "data.batch_size": 4,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer1", "layer2", "layer3"),
            "detector.gamma_c": 1,
            "detector.gamma_d": 1,
            "detector.epochs": 30,
            "detector.learning_rate": 1e-3,
            "detector.weight_decay": 5e-4,
            "threshold.holdout": 0.0,
        },
        "best epoch on the test images, of each metric its own",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("cfa", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 4})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.crop = 0
        config.backbone.name = "resnet18"
    if wanted.quick:
        # one category has few images
        quick(config, {"epochs": 10 if wanted.category else 1}, batch_size=4)
    return finish(config, wanted)
