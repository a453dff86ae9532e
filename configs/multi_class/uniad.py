"""UniAD (You et al., NeurIPS 2022), one model for all categories.

    python scripts/train.py --config=configs/multi_class/uniad.py:smoke
    python scripts/train.py --config=configs/multi_class/uniad.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/uniad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/uniad.py:folder --config.data.root=DIR

Published (MVTec AD, one model for 15 categories, EfficientNet-B4, 224 x 224, 1000 epochs, AdamW 1e-4, batch 64 on 8 devices):
image AUROC 0.965, pixel AUROC 0.968 (paper, tables 1 and 2; the best checkpoint by pixel AUROC on the test set, and the
authors' code turns an AUROC below 0.5 into its complement). Here the last epoch counts.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("uniad", "synthetic" if smoke else dataset)
    config.data.update({"category": "all", "resize": 224, "batch_size": 64})
    # the padding of the authors' port of EfficientNet
    config.backbone.name = "efficientnet_b4_static"
    config.detector.layers = ("stage1", "stage2", "stage3", "stage5")
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "batch_size": 16})
        config.backbone.name = "filter_bank"
        config.detector.update({"layers": ("layer1", "layer2", "layer3"), "stride": 16, "hidden": 96, "heads": 4, "width": 192})
        config.detector.update({"num_encoder_layers": 2, "num_decoder_layers": 2, "epochs": 8, "learning_rate": 2e-3})
        config.detector.update({"clip_norm": 1.0, "neighbor_size": 3})
    if dataset == "mvtec_ad":
        # one model for all categories; the authors hold out no training images
        config.protocol.name = "unsupervised" if category else "multi_class"
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.data.update({"category": "", "resize": 224, "batch_size": 8})
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer1", "layer2", "layer3")
    return config
