"""PatchFlow (Zhang et al., 2026), one model per category.

    python scripts/train.py --config=configs/unsupervised/patchflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/patchflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchflow.py:folder --config.data.root=DIR

Published for mvtec_ad and visa: PUBLISHED below. The authors' code (github.com/BOX-LEO/PatchFlow, which states no licence;
nothing of it is here) keeps the epoch with the best pixel AUROC on the test images. How many epochs the figures took is not
known. anomalib has PatchFlow under Apache-2.0, with other sizes of levels.

No training images are held out for mvtec_ad and visa, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 768,
    "data.crop": 0,
    "data.batch_size": 8,
    "backbone.name": "efficientnet_b5_static",
    "detector.layers": ("stage3", "stage4", "stage6"),
    "detector.num_scales": 3,
    "detector.dimension": 128,
    "detector.flow_steps": 1,
    "detector.hidden": 128,
    "threshold.holdout": 0.0,
}
NOTE = "best epoch on the test set; the number of epochs is not known"
PUBLISHED = [
    Row(dataset, {"image_auroc": value}, "arXiv 2602.05238 and its README, averages", PROTOCOL, NOTE)
    for dataset, value in (("mvtec_ad", 0.9928), ("visa", 0.9648))
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("patchflow", wanted.dataset)
    config.data.update({"resize": 768, "batch_size": 8})
    config.backbone.name = "efficientnet_b5_static"
    if wanted.dataset in ("mvtec_ad", "visa"):
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    if wanted.quick:
        small = {"layers": ("layer1", "layer2", "layer3"), "num_scales": 2, "dimension": 64, "hidden": 32}
        quick(config, small | {"epochs": 20 if wanted.category else 5}, batch_size=8)
    return finish(config, wanted)
