"""InversionAD (Sakai et al., CVPR 2026), one model for all categories.

    python scripts/train.py --config=configs/multi_class/inversionad.py:synthetic,quick
    python scripts/train.py --config=configs/multi_class/inversionad.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inversionad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inversionad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The network has some 800 million parameters. The authors scale scores over the test
images of each category; here the training images standardise them.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.990, "pixel_auroc": 0.969},
        "arXiv 2504.05662",
        {
            "data.category": "all",
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 8,
            "backbone.name": "efficientnet_b4_static",
            "protocol.name": "multi_class",
            "threshold.holdout": 0.0,
            "detector.width": 2048,
            "detector.depth": 16,
            "detector.epochs": 300,
        },
        "scores scaled over the test images of each category; bfloat16 in prediction",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("inversionad", wanted.dataset)
    config.data.update({"category": "all", "resize": 256, "batch_size": 8})
    # the padding of the authors' port of EfficientNet
    config.backbone.name = "efficientnet_b4_static"
    if wanted.dataset == "mvtec_ad":
        # one model for all categories; the authors hold out no training images
        config.protocol.name = "unsupervised" if wanted.category else "multi_class"
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.category = ""
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    if wanted.quick:
        small = {"layers": ("layer1", "layer2", "layer3"), "stride": 8, "width": 128, "depth": 4, "heads": 4}
        small |= {"learning_rate": 1e-3, "epochs": 40 if wanted.category else 10, "warmup_epochs": 2}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
