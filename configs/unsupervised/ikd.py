"""IKD, Informative Knowledge Distillation (Cao et al., Knowledge-Based Systems 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/ikd.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/ikd.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ikd.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ikd.py:folder --config.data.root=DIR

Reference: github.com/caoyunkang/IKD (no licence; nothing is taken from it). Published for mvtec_ad: PUBLISHED below, of that
repository; the options are the defaults of its train.py. It reports pixels only.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"pixel_auroc": 0.9781},
        "github.com/caoyunkang/IKD, README (Knowledge-Based Systems 248, 108846)",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 2,
            "backbone.name": "hrnet_w32_bilinear",
            "detector.layers": ("branch1", "branch2"),
            "detector.level_weights": (1.0, 2.0),
            "detector.beta": 2.0,
            "detector.gamma": 1.0,
            "detector.momentum": 0.01,
            "detector.shared_margin": True,
            "detector.epochs": 50,
            "detector.learning_rate": 1e-5,
            "threshold.holdout": 0.0,
        },
        "one model per category",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ikd", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 2})
    config.backbone.name = "hrnet_w32_bilinear"
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.quick:
        short = {"layers": ("layer1", "layer2"), "width": 16, "learning_rate": 1e-3}
        # one category has few images
        quick(config, {"epochs": 30 if wanted.category else 4, **short}, batch_size=8)
    return finish(config, wanted)
