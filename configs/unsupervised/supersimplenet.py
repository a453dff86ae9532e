"""SuperSimpleNet (Rolih et al., ICPR 2024), one model per category.

    python scripts/train.py --config=configs/unsupervised/supersimplenet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/supersimplenet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/supersimplenet.py:visa,category=candle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/supersimplenet.py:folder --config.data.root=DIR

Published for mvtec_ad and visa: PUBLISHED below. The authors train on visa with another threshold of the noise. With labelled
anomalies: configs/supervised/supersimplenet.py.

No training images are held out for mvtec_ad and visa, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 32,
    "backbone.name": "wide_resnet50_2",
    "detector.epochs": 300,
    "threshold.holdout": 0.0,
}
SOURCE = "github.com/blaz-r/SuperSimpleNet, paper_results/results_avg_std.json"
PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.984, "pixel_auroc": 0.975, "aupro": 0.911, "pixel_ap": 0.497},
        SOURCE,
        {**PROTOCOL, "detector.perlin_threshold": 0.2},
        "mean over five runs, last epoch",
    ),
    Row(
        "visa",
        {"image_auroc": 0.934, "pixel_auroc": 0.983, "aupro": 0.874, "pixel_ap": 0.354},
        SOURCE,
        {**PROTOCOL, "detector.perlin_threshold": 0.6},
        "mean over five runs, last epoch",
    ),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("supersimplenet", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset in ("mvtec_ad", "visa"):
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset == "visa":
        config.detector.perlin_threshold = 0.6
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
    if wanted.quick:
        small = {"layers": ("layer2",), "hidden": 128, "width": 32, "noise_std": 0.1, "epochs": 20 if wanted.category else 9}
        quick(config, small | {"adaptor_rate": 1e-3, "learning_rate": 1e-3}, batch_size=8)
    return finish(config, wanted)
