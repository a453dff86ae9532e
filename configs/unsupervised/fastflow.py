"""FastFlow (Yu et al., 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/fastflow.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/fastflow.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fastflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fastflow.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, of Gathierry's re-implementation, whose version of timm means these weights. Here the
last epoch counts. The paper has 0.994 (image) and 0.985 (pixel) for its best backbone.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 32,
    "backbone.name": "wide_resnet50_2",
    "backbone.weights": "timm/wide_resnet50_2.racm_in1k",
    "detector.conv3x3_only": False,
    "detector.epochs": 500,
    "detector.learning_rate": 1e-3,
    "threshold.holdout": 0.0,
}
SOURCE = "github.com/gathierry/FastFlow, table of the README"
PUBLISHED = [
    Row("mvtec_ad", {"pixel_auroc": 0.972}, SOURCE, PROTOCOL, "last epoch"),
    Row("mvtec_ad", {"pixel_auroc": 0.983}, SOURCE, PROTOCOL, "epoch selected on the test set"),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("fastflow", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    config.detector.conv3x3_only = False
    if wanted.dataset == "mvtec_ad":
        # the re-implementation holds out no training images
        config.backbone.weights = "timm/wide_resnet50_2.racm_in1k"
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.detector.conv3x3_only = True
    if wanted.quick:
        quick(config, {"conv3x3_only": True, "flow_steps": 4, "epochs": 8, "learning_rate": 2e-3}, batch_size=8)
    return finish(config, wanted)
