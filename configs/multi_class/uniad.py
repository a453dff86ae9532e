"""UniAD (You et al., NeurIPS 2022), one model for all categories.

    python scripts/train.py --config=configs/multi_class/uniad.py:synthetic,quick
    python scripts/train.py --config=configs/multi_class/uniad.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/uniad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/uniad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, on 8 devices with 64 images a step. The authors' code turns an AUROC below 0.5 into its
complement. Here the last epoch counts.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.965, "pixel_auroc": 0.968},
        "arXiv 2206.03687, tables 1 and 2",
        {
            "data.category": "all",
            "data.resize": 224,
            "data.crop": 0,
            "data.batch_size": 64,
            "backbone.name": "efficientnet_b4_static",
            "protocol.name": "multi_class",
            "threshold.holdout": 0.0,
            "detector.epochs": 1000,
            "detector.learning_rate": 1e-4,
            "detector.decay_at": 0.8,
        },
        "epoch selected on the test set by pixel AUROC",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("uniad", wanted.dataset)
    config.data.update({"category": "all", "resize": 224, "batch_size": 64})
    # the padding of the authors' port of EfficientNet
    config.backbone.name = "efficientnet_b4_static"
    config.detector.layers = ("stage1", "stage2", "stage3", "stage5")
    if wanted.dataset == "mvtec_ad":
        # one model for all categories; the authors hold out no training images
        config.protocol.name = "unsupervised" if wanted.category else "multi_class"
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.update({"category": "", "resize": 224, "batch_size": 8})
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    if wanted.quick:
        small = {"layers": ("layer1", "layer2", "layer3"), "stride": 16, "hidden": 96, "heads": 4, "width": 192}
        small |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "clip_norm": 1.0, "neighbor_size": 3}
        quick(config, small | {"epochs": 8, "learning_rate": 2e-3}, batch_size=16)
    return finish(config, wanted)
