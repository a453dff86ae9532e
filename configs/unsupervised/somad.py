"""SOMAD (Li et al., ICIP 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/somad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/somad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/somad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/somad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The protocol is that of the authors' code (github.com/ddzxlining/SOMAD), which has
no licence and was read for facts alone. The 3136 matrices of 550 channels take 3.8 GB.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.979, "pixel_auroc": 0.978, "aupro": 0.933},
        "arXiv 2107.09903",
        {
            "data.resize": 256,
            "data.crop": 224,
            "data.batch_size": 32,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer1", "layer2", "layer3"),
            "detector.num_channels": 550,
            "detector.side": 56,
            "detector.rough_epochs": 20,
            "detector.fine_epochs": 15,
            "detector.num_neighbors": 5,
            "detector.epsilon": 0.01,
            "detector.sigma": 4.0,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("somad", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.crop = 0
        config.backbone.name = "resnet18"
        config.detector.num_channels = 100
    if wanted.quick:
        quick(config, {"num_channels": 0, "side": 16, "rough_epochs": 6, "fine_epochs": 4}, batch_size=16)
    return finish(config, wanted)
