"""STPM, also called STFPM (Wang et al., BMVC 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/stpm.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/stpm.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/stpm.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/stpm.py:folder --config.data.root=DIR

Reference: github.com/gdwang08/STFPM (GPL-3; nothing is taken from it). Published for mvtec_ad: PUBLISHED below, of that
repository, which trains 100 epochs by default and 200 in the command of its README. It keeps the student whose maps of the
held-out images have the smallest mean; here it is the last one. A fifth of the training images is held out there and here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.955, "pixel_auroc": 0.970, "aupro": 0.928},
        "github.com/gdwang08/STFPM, table of the README (arXiv 2103.04257)",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 32,
            "backbone.name": "resnet18",
            "detector.layers": ("layer1", "layer2", "layer3"),
            "detector.loss_weight": 1.0,
            "detector.epochs": 200,
            "detector.learning_rate": 0.4,
            "detector.momentum": 0.9,
            "detector.weight_decay": 1e-4,
            "threshold.holdout": 0.2,
        },
        "the epoch with the smallest mean map of held-out images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("stpm", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "resnet18"
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.2
        config.detector.update({"loss_weight": 1.0, "epochs": 200})
    if wanted.quick:
        # one category has few images
        quick(config, {"epochs": 30 if wanted.category else 4, "width": 16}, batch_size=8)
    return finish(config, wanted)
