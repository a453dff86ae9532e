"""FastFlow (Yu et al., 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/fastflow.py:smoke
    python scripts/train.py --config=configs/unsupervised/fastflow.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fastflow.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fastflow.py:folder --config.data.root=DIR

Published (MVTec AD mean, Wide ResNet-50-2, 256 x 256, 500 epochs, batch 32, Adam 1e-3): image AUROC 0.994, pixel AUROC
0.985 with the best backbone (paper, table 3); re-implementations reach its figures at the best epoch of the test set only.
Gathierry's takes the weights `timm/wide_resnet50_2.racm_in1k`; give them with --config.backbone.weights=TAG.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("fastflow", "synthetic" if smoke else dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    config.detector.conv3x3_only = False
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.data.update({"resize": 128, "batch_size": 8})
        config.backbone.name = "filter_bank"
        config.detector.update({"conv3x3_only": True, "flow_steps": 4, "epochs": 8, "learning_rate": 2e-3})
    if dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.detector.conv3x3_only = True
    return config
