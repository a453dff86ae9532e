"""AnomalyDINO (Damm et al., WACV 2025) from k normal images.

    python scripts/train.py --config=configs/few_shot/anomalydino.py:smoke
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:folder --config.data.root=DIR

Published (MVTec AD mean, DINOv2 ViT-S/14, shorter side 448, 1 shot, agnostic setting): image AUROC 0.966 (paper,
with masks for five categories).

Measured here: docs/engines.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), "mvtec_ad:category", "mtd", "mtd_300", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("anomalydino", "synthetic" if smoke else dataset)
    config.protocol.update({"name": "few_shot", "num_shots": 1})
    config.data.update({"resize": 448, "batch_size": 1})
    config.backbone.name = "dinov2_vits14"
    if category or smoke:
        config.data.category = category or "all"
    if smoke:
        config.protocol.num_shots = 4
        config.data.update({"resize": 128, "batch_size": 8})
        config.backbone.name = "filter_bank"
        config.detector.update({"layers": ("layer1", "layer2"), "rotations": 1})
    if dataset in ("mtd", "mtd_300"):
        config.protocol.num_shots = 4
        config.data.resize = 256
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer2", "layer3")
    return config
