"""CutPaste (Li et al., CVPR 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/cutpaste.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/cutpaste.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cutpaste.py:mtd,detector.patch=64 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cutpaste.py:folder --config.data.root=DIR

The model of whole images has no map; the model of patches (detector.patch=64) has one. `quick` takes patches.

Published for mvtec_ad: PUBLISHED below. A task of two classes is detector.task=normal or scar; the paper's ensemble
(.961) has no config. The weights of its pretrained variant are --config.backbone.weights=timm/resnet18.tv_in1k.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 32,
    "backbone.name": "resnet18",
    "backbone.weights": "random",
    "detector.steps": 65536,
    "detector.learning_rate": 0.03,
    "threshold.holdout": 0.0,
}
PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": figure},
        "arXiv 2104.04015, table 1",
        {**PROTOCOL, "detector.task": task, "detector.patch": 0},
        "mean over five seeds; with random translations",
        arg,
    )
    for task, figure, arg in (
        ("3way", 0.952, ""),
        ("normal", 0.909, "mvtec_ad,detector.task=normal"),
        ("scar", 0.934, "mvtec_ad,detector.task=scar"),
    )
]
PUBLISHED.append(
    Row(
        "mvtec_ad",
        {"pixel_auroc": 0.960},
        "arXiv 2104.04015, table 3",
        {**PROTOCOL, "detector.task": "3way", "detector.patch": 64, "detector.stride": 4},
        "mean over five seeds; with random translations",
        "mvtec_ad,detector.patch=64",
    )
)


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("cutpaste", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.update({"name": "resnet18", "weights": "random"})
    if wanted.dataset == "mvtec_ad":
        # the paper holds out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"layers": ("layer2",), "head": (128,), "patch": 32, "stride": 8, "density_stride": 16, "steps": 100}
        quick(config, small, batch_size=16)
        # a bank of filters has nothing to learn
        config.backbone.update({"name": "resnet18", "weights": "random"})
    return finish(config, wanted)
