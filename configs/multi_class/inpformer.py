"""INP-Former (Luo et al., CVPR 2025), one model for all categories.

    python scripts/train.py --config=configs/multi_class/inpformer.py:synthetic,quick
    python scripts/train.py --config=configs/multi_class/inpformer.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inpformer.py:visa --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inpformer.py:real_iad --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inpformer.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/multi_class/inpformer.py:folder --config.data.root=DIR

Reference: github.com/luow23/INP-Former, MIT. Published for mvtec_ad, visa and real_iad: PUBLISHED below. The authors score
masks of 256 pixels. They resize DINOv2's positions as Dinomaly's authors, which the backbone with "_offset" in its name does.

No training images are held out for them, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick


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
        "detector.num_prototypes": 6,
        "detector.epochs": 200,
        "detector.learning_rate": 1e-3,
    }
    figures = {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc, "aupro": aupro}
    return Row(dataset, figures, "arXiv 2503.02424, tables of multi-class results", protocol)


PUBLISHED = [
    _row("mvtec_ad", 0.997, 0.985, 0.949),
    _row("visa", 0.989, 0.989, 0.944),
    _row("real_iad", 0.905, 0.990, 0.950),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("inpformer", wanted.dataset)
    config.data.update({"category": "all", "resize": 448, "resize_side": "both", "crop": 392, "batch_size": 16})
    config.backbone.name = "dinov2_vitb14_reg_offset"
    config.evaluate.eval_size = 256
    if wanted.dataset in ("mvtec_ad", "visa", "real_iad"):
        # one model for all categories; the authors hold out no training images
        config.protocol.name = "unsupervised" if wanted.category else "multi_class"
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.category = ""
    if wanted.quick:
        small = {"layers": ("layer2", "layer3"), "heads": 3, "depth": 4, "num_prototypes": 3, "dropout": 0.3, "clip_norm": 1.0}
        small |= {"epochs": 40 if wanted.category else 7, "warmup": 10, "learning_rate": 5e-3, "final_rate": 5e-4}
        quick(config, small, batch_size=8)
        config.evaluate.eval_size = 0
    return finish(config, wanted)
