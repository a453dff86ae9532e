"""PyramidFlow (Lei et al., CVPR 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/pyramidflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/pyramidflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/pyramidflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/pyramidflow.py:folder --config.data.root=DIR

The authors have 8 levels for metal_nut, carpet and transistor, 2 for screw, and 4 for the others. The norm is "spatial" for
carpet, grid, bottle and transistor, and textures are mirrored and turned. They select the epoch on the test set. Published
figures are not quoted: the paper's table was not at hand. Their code is under the MIT licence; nothing of it is here.

No training images are held out for mvtec_ad, as in the authors' protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []
LEVELS = {"metal_nut": 8, "carpet": 8, "transistor": 8, "screw": 2}
SPATIAL = ("carpet", "grid", "bottle", "transistor")
TEXTURES = ("carpet", "leather", "tile", "wood", "grid")


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("pyramidflow", wanted.dataset)
    config.data.update({"resize": 1024, "batch_size": 2})
    config.backbone.name = "resnet18"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
        config.detector.levels = LEVELS.get(wanted.category, 4)
        config.detector.norm = "spatial" if wanted.category in SPATIAL else "channel"
        config.detector.flips = wanted.category in TEXTURES
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
    if wanted.quick:
        quick(config, {"levels": 3, "stacks": 2, "kernel": 3, "epochs": 6, "learning_rate": 1e-3}, batch_size=4)
    return finish(config, wanted)
