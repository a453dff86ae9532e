"""Dinomaly (Guo et al., CVPR 2025), one model for all categories.

    python scripts/train.py --config=configs/multi_class/dinomaly.py:synthetic,quick
    python scripts/train.py --config=configs/multi_class/dinomaly.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/dinomaly.py:visa --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/dinomaly.py:real_iad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/dinomaly.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/dinomaly.py:folder --config.data.root=DIR

Reference: github.com/guojiajeremy/Dinomaly, Apache-2.0. Published for mvtec_ad, visa and real_iad: PUBLISHED below. The authors
score masks of 256 pixels that are marked where any trace is left, and take 200 steps for PRO. They resize DINOv2's positions
without antialiasing and by (n + 0.1) / 37, which the backbone with "_offset" in its name does.

No training images are held out for them, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

# 50,000 steps and more dropout for 30 categories with five views
REAL_IAD = {"steps": 50000, "dropout": 0.4}


def _row(dataset, image_auroc, pixel_auroc, aupro):
    protocol = {
        "data.category": "all",
        "data.resize": 448,
        "data.resize_side": "both",
        "data.crop": 392,
        "data.batch_size": 16,
        "backbone.name": "dinov2_vitb14_reg_offset",
        "protocol.name": "multi_class",
        "evaluate.eval_size": 256,
        "threshold.holdout": 0.0,
        "detector.layers": tuple(f"block{i}" for i in range(3, 11)),
        "detector.learning_rate": 2e-3,
        "detector.epsilon": 1e-10,
        "detector.steps": REAL_IAD["steps"] if dataset == "real_iad" else 10000,
        "detector.dropout": REAL_IAD["dropout"] if dataset == "real_iad" else 0.2,
    }
    figures = {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc, "aupro": aupro}
    return Row(dataset, figures, "arXiv 2405.14325, tables of multi-class results", protocol, "PRO in 200 steps of the score")


PUBLISHED = [
    _row("mvtec_ad", 0.996, 0.984, 0.948),
    _row("visa", 0.987, 0.987, 0.945),
    _row("real_iad", 0.893, 0.988, 0.939),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("dinomaly", wanted.dataset)
    config.data.update({"category": "all", "resize": 448, "resize_side": "both", "crop": 392, "batch_size": 16})
    config.backbone.name = "dinov2_vitb14_reg_offset"
    config.evaluate.eval_size = 256
    if wanted.dataset.startswith("real_iad"):
        config.detector.update(REAL_IAD)
    if wanted.dataset in ("mvtec_ad", "visa", "real_iad"):
        # one model for all categories; the authors hold out no training images
        config.protocol.name = "unsupervised" if wanted.category else "multi_class"
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.category = ""
    if wanted.quick:
        # filters have no wide features, so that more noise is needed
        small = {"layers": ("layer2", "layer3"), "heads": 3, "depth": 4, "dropout": 0.5, "clip_norm": 1.0}
        quick(config, small | {"steps": 300, "warmup": 10, "easy_steps": 100}, batch_size=8)
        config.evaluate.eval_size = 0
    return finish(config, wanted)
