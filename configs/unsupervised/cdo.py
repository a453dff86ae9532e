"""CDO (Cao et al., IEEE TII 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/cdo.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/cdo.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cdo.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cdo.py:folder --config.data.root=DIR

Reference: github.com/caoyunkang/CDO (MIT) as of February 2023; the options are the defaults of its train.py. Published for
mvtec_ad: PUBLISHED below, of pixels only. Noise does not lie on the background of some categories (OBJECTS); several categories
together have it everywhere. The authors resize images without antialiasing.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

OBJECTS = ("bottle", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "zipper")
PUBLISHED = [
    Row(
        "mvtec_ad",
        {"pixel_auroc": 0.9822, "aupro": 0.9468},
        "arXiv 2302.08769, tables I and II",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 16,
            "backbone.name": "hrnet_w32_bilinear",
            "detector.layers": ("branch0", "branch1", "branch2"),
            "detector.gamma": 2.0,
            "detector.max_patches": 4,
            "detector.epochs": 50,
            "detector.learning_rate": 4e-4,
            "threshold.holdout": 0.0,
        },
        "one model per category",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("cdo", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    config.backbone.name = "hrnet_w32_bilinear"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
        config.detector.skip_background = wanted.category in OBJECTS
    if wanted.quick:
        short = {"layers": ("layer1", "layer2"), "width": 16, "learning_rate": 1e-3}
        # one category has few images
        quick(config, {"epochs": 30 if wanted.category else 4, **short}, batch_size=8)
    return finish(config, wanted)
