"""DifferNet (Rudolph et al., WACV 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/differnet.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/differnet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/differnet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/differnet.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The authors score 64 random rotations, here they are regular, and the last epoch
counts. Weights of AlexNet are torchvision's, from a file: --config.backbone.weights=FILE. The authors' code states no licence.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.949},
        "arXiv 2008.12577, table of MVTec results",
        {
            "data.resize": 448,
            "data.crop": 0,
            "data.batch_size": 24,
            "backbone.name": "alexnet",
            "detector.scales": 3,
            "detector.rotations": 64,
            "detector.train_rotations": 4,
            "detector.epochs": 192,
            "threshold.holdout": 0.0,
        },
        "epoch selected on the test set",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("differnet", wanted.dataset)
    config.data.update({"resize": 448, "batch_size": 24})
    config.backbone.name = "alexnet"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.resize = 256
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer3",)
    if wanted.quick:
        small = {"layers": ("layer1", "layer2"), "scales": 2, "coupling_blocks": 4, "hidden": 32, "learning_rate": 2e-3}
        # every view of every epoch goes through the network, and compiling its gradient takes half a minute
        small |= {"train_rotations": 2, "rotations": 8, "epochs": 20, "gradient_map": False}
        quick(config, small, resize=96, batch_size=8)
    return finish(config, wanted)
