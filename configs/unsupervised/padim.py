"""PaDiM (Defard et al., ICPR 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/padim.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/padim.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/padim.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/padim.py:visa,network=dinov2_vits14 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/padim.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below (image AUROC 0.979 with EfficientNet-B5, which is not the backbone here).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

`network` takes a vision transformer of docs/backbones.md instead: 100 channels of its normalised patch tokens, images of
448 x 448. No row is quoted for that.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.953, "pixel_auroc": 0.975},
        "arXiv 2011.08785",
        {
            "data.resize": 256,
            "data.crop": 224,
            "backbone.name": "wide_resnet50_2",
            "detector.num_channels": 550,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,network=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg, network="")
    config = base_config("padim", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    config.detector.num_channels = 550
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.crop = 0
        config.backbone.name = "resnet18"
        config.detector.num_channels = 100
    if wanted.options["network"]:
        # 448 is a multiple of every patch
        config.data.update({"resize": 448, "crop": 0, "interpolation": "bicubic", "batch_size": 4})
        config.backbone.name = wanted.options["network"]
        config.detector.update({"layers": ("norm",), "num_channels": 100})
    if wanted.quick:
        quick(config, {"num_channels": 0, "layers": ("layer1", "layer2", "layer3")}, batch_size=16)
    return finish(config, wanted)
