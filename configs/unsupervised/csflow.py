"""CS-Flow (Rudolph et al., WACV 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/csflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/csflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/csflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/csflow.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, of the authors and of anomalib, whose network has torchvision's padding and whose map
is the product of all scales. Here the last epoch counts. The authors' code states no licence, anomalib's is under Apache-2.0.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick


def _protocol(size):
    return {
        "data.resize": size,
        "data.crop": 0,
        "data.batch_size": 16,
        "detector.scales": 3,
        "detector.coupling_blocks": 4,
        "detector.hidden": 1024,
        "detector.epochs": 240,
        "threshold.holdout": 0.0,
    }


def _anomalib(size, image_auroc, pixel_auroc):
    protocol = {"backbone.name": "efficientnet_b5_symmetric", "detector.localize": "product"}
    return Row(
        "mvtec_ad",
        {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc},
        "github.com/open-edge-platform/anomalib, README of CS-Flow",
        _protocol(size) | protocol,
        "anomalib's figures, whose loss weighs log |det| by the batch",
        f"mvtec_ad,anomalib={size}",
    )


PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.987},
        "arXiv 2110.02855, table of MVTec results",
        _protocol(768) | {"backbone.name": "efficientnet_b5_static"},
    ),
    _anomalib(768, 0.987, 0.921),
    _anomalib(256, 0.972, 0.845),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,anomalib=SIZE][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg, anomalib=0)
    config = base_config("csflow", wanted.dataset)
    config.data.update({"resize": 768, "batch_size": 16})
    config.backbone.name = "efficientnet_b5_static"
    if wanted.options["anomalib"]:
        config.data.resize = wanted.options["anomalib"]
        config.backbone.name = "efficientnet_b5_symmetric"
        config.detector.localize = "product"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
        config.backbone.name = "resnet18"
        config.detector.layer = "layer3"
    if wanted.quick:
        small = {"layer": "layer2", "coupling_blocks": 2, "hidden": 32, "epochs": 12, "learning_rate": 2e-3}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
