"""ADTR and ADTR+ (You et al., ICONIP 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/adtr.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/adtr.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/adtr.py:mvtec_ad,detector.labels=pixel --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/adtr.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/adtr.py:folder --config.data.root=DIR

The authors published no code. Published for mvtec_ad: PUBLISHED below, of ADTR, then of ADTR+ with confetti noise. Which port
of EfficientNet they took is not known; this one is that of UniAD, by the same authors. With labelled anomalies:
--config.protocol.name=supervised --config.detector.labels=pixel --config.detector.anomaly_fraction=0.5.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 16,
    "backbone.name": "efficientnet_b4_static",
    "detector.layers": ("stage1", "stage2", "stage3", "stage5", "stage7"),
    "detector.stride": 16,
    "detector.epochs": 500,
    "detector.learning_rate": 1e-4,
    "detector.weight_decay": 1e-4,
    "detector.decay_at": 0.8,
    "threshold.holdout": 0.0,
}
PLUS = {"detector.labels": "pixel", "detector.alpha": 0.003, "detector.plus_epochs": 300, "detector.anomaly_fraction": 0.0}
SOURCE = "arXiv 2209.01816, tables 1 and 2"
PUBLISHED = [
    Row("mvtec_ad", {"image_auroc": 0.964, "pixel_auroc": 0.972}, SOURCE, PROTOCOL, "one model per category"),
    Row(
        "mvtec_ad",
        {"image_auroc": 0.969, "pixel_auroc": 0.975},
        SOURCE,
        PROTOCOL | PLUS,
        "ADTR+, with confetti noise as anomalies",
        arg="mvtec_ad,detector.labels=pixel",
    ),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("adtr", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    config.backbone.name = "efficientnet_b4_static"
    # 24, 32, 56, 160 and 448 channels
    config.detector.layers = ("stage1", "stage2", "stage3", "stage5", "stage7")
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.batch_size = 8
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    if wanted.quick:
        small = {"layers": ("layer1", "layer2", "layer3"), "hidden": 96, "heads": 4, "width": 192, "learning_rate": 2e-3}
        small |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "plus_epochs": 4}
        # one category has few images
        quick(config, small | {"epochs": 40 if wanted.category else 8}, batch_size=16)
    return finish(config, wanted)
