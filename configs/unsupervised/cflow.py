"""CFLOW-AD (Gudovskiy et al., WACV 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/cflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/cflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/cflow.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The authors give every category a size of its own, which `category=` takes here. All
categories in one run have 256 pixels. Here the last epoch counts. The authors' code is under BSD-3.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

# the authors' commands
SIZES = {
    **dict.fromkeys(("bottle", "carpet", "grid", "leather", "screw", "tile", "toothbrush", "wood", "zipper"), 512),
    **dict.fromkeys(("cable", "capsule", "hazelnut", "metal_nut", "pill"), 256),
    "transistor": 128,
}
PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.9826, "pixel_auroc": 0.9862, "aupro": 0.946},
        "arXiv 2107.12571, table of MVTec results",
        {
            "data.resize": SIZES["bottle"],
            "data.crop": 0,
            "data.batch_size": 32,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer2", "layer3", "layer4"),
            "detector.epochs": 200,
            "threshold.holdout": 0.0,
        },
        "sizes by category (here that of bottle), epoch selected on the test set",
        "mvtec_ad,category=bottle",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("cflow", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.data.resize = SIZES.get(wanted.category, 256)
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
    if wanted.quick:
        small = {"layers": ("layer2", "layer3"), "coupling_blocks": 4, "epochs": 8, "meta_epochs": 8, "learning_rate": 1e-3}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
