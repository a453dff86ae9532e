"""GeneralAD (Strater et al., ECCV 2024), one model per category.

    python scripts/train.py --config=configs/unsupervised/generalad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/generalad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/generalad.py:mvtec_loco,category=pushpins --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/generalad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/generalad.py:folder --config.data.root=DIR

Reference: github.com/LucStrater/GeneralAD, MIT. Published for mvtec_ad: PUBLISHED below. The authors resize by Lanczos' filter,
here the bicubic one, and take the best epoch on the test set; here the last one counts. For mvtec_loco some patches are
shuffled as well; the authors choose them by attention.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.994},
        "arXiv 2407.12427, as anomalib 2.7.0 quotes it",
        {
            "data.resize": 518,
            "data.crop": 0,
            "data.interpolation": "bicubic",
            "data.batch_size": 16,
            "backbone.name": "dinov2_vitl14",
            "protocol.name": "unsupervised",
            "detector.layers": ("norm",),
            "detector.noise": 0.25,
            "detector.shuffle": False,
            "detector.epochs": 160,
            "detector.learning_rate": 5e-4,
            "threshold.holdout": 0.0,
        },
        "epoch selected on the test set; Lanczos' filter",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("generalad", wanted.dataset)
    config.data.update({"resize": 518, "interpolation": "bicubic", "batch_size": 16})
    config.backbone.name = "dinov2_vitl14"
    config.detector.shuffle = wanted.dataset == "mvtec_loco"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.update({"resize": 256, "interpolation": "bilinear", "batch_size": 8})
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer2", "layer3")
    if wanted.quick:
        # filters are 18 numbers: the noise has to be larger, and shuffled patches help
        small = {"layers": ("layer2",), "heads": 2, "hidden": 64, "dropout": 0.0, "noise": 0.6, "shuffle": True}
        small |= {"sigma": 4.0, "radius": 16, "learning_rate": 2e-3}
        # one category has few images
        quick(config, small | {"epochs": 60 if wanted.category else 10}, batch_size=8)
    return finish(config, wanted)
