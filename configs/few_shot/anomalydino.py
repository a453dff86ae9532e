"""AnomalyDINO (Damm et al., WACV 2025) from a few normal images.

    python scripts/train.py --config=configs/few_shot/anomalydino.py:smoke
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mvtec_ad:bottle --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:visa:pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:folder --config.data.root=DIR

Published (MVTec AD mean, DINOv2 ViT-S/14, shorter side 448, 1 shot, agnostic setting): image AUROC 0.966 (paper, with masks for
five categories: capsule, hazelnut, pill, screw, toothbrush).

The authors' protocol, here for mvtec_ad and visa: the shots are the first files by name (seed s takes the next ones), each is
rotated eight times before the resize, the shorter side becomes 448 pixels (bicubic, the aspect is kept), and images are cropped
from the top left to multiples of the patch, 14. Masks are on for those five categories of mvtec_ad and for all of visa. Maps
are smoothed at the original resolution, sigma 4.

No training images are held out for mvtec_ad and visa, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/detectors.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config

# the authors' table: where the background is masked
MASKED = ("capsule", "hazelnut", "pill", "screw", "toothbrush")


def get_config(arg: str = "smoke"):
    """`arg`: "smoke[:category]" (synthetic images, a minute on two cores), or a data set like "mvtec_ad:category", "folder"."""
    dataset, _, category = arg.partition(":")
    smoke = dataset == "smoke"
    config = base_config("anomalydino", "synthetic" if smoke else dataset)
    config.protocol.update({"name": "few_shot", "num_shots": 1})
    config.data.update({"resize": 448, "interpolation": "bicubic", "batch_size": 1})
    config.backbone.name = "dinov2_vits14"
    if category or smoke:
        config.data.category = category or "all"
    if dataset in ("mvtec_ad", "visa"):
        # references are rotated by the protocol, at their own resolution, instead of by the detector
        config.protocol.update({"shots_by_name": True, "rotations": 8})
        config.detector.update({"rotations": 1, "masking": dataset == "visa" or category in MASKED, "sigma": 0.0})
        config.evaluate.map_sigma = 4.0
        config.data.update({"resize_side": "shorter", "crop_multiple": 14})
        config.threshold.holdout = 0.0
    if smoke:
        config.protocol.num_shots = 4
        config.data.update({"resize": 128, "interpolation": "bilinear", "batch_size": 8})
        config.backbone.name = "filter_bank"
        config.detector.update({"layers": ("layer1", "layer2"), "rotations": 1})
    if dataset in ("mtd", "mtd_300"):
        config.protocol.num_shots = 4
        config.data.update({"resize": 256, "interpolation": "bilinear"})
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer2", "layer3")
    return config
