"""RAD (Zhang et al., ICML 2026), one gallery for all categories.

    python scripts/train.py --config=configs/multi_class/rad.py:synthetic,category=all,quick
    python scripts/train.py --config=configs/multi_class/rad.py:mvtec_ad --config.data.root=DIR --config.backbone.weights=FILE
    python scripts/train.py --config=configs/multi_class/rad.py:visa --config.data.root=DIR --config.backbone.weights=FILE
    python scripts/train.py --config=configs/multi_class/rad.py:real_iad --config.data.root=DIR --config.backbone.weights=FILE

Reference: github.com/longkukuhi/RAD (no licence: written from facts alone); anomalib 2.7.0 (Apache-2.0) has it too. Published
for mvtec_ad: PUBLISHED below, the figure of the abstract. The weights of DINOv3 have a licence of their own, and you bring
them. The gallery of mvtec_ad takes 35 GB in float32 (the authors' is the same). Another network is smaller:
--config.backbone.name=dinov2_vits14 --config.detector.layers="('block6.norm','norm')".

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"pixel_auroc": 0.985},
        "arXiv 2601.22763, abstract",
        {
            "data.resize": 512,
            "data.crop": 448,
            "data.category": "all",
            "protocol.name": "multi_class",
            "backbone.name": "dinov3_vitb16",
            "detector.layers": ("block4.norm", "block7.norm", "block10.norm", "norm"),
            "detector.num_images": 150,
            "detector.positional": True,
            "detector.radius": 1,
            "detector.top": 0.01,
            "detector.map_size": 256,
            "evaluate.eval_size": 256,
            "threshold.holdout": 0.0,
        },
        "the authors' blur has zeros outside the map",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    dataset = wanted.dataset
    config = base_config("rad", dataset)
    config.data.category = "all"
    config.data.update({"resize": 512, "crop": 448, "batch_size": 8})
    config.backbone.name = "dinov3_vitb16"
    if dataset in ("visa", "real_iad"):
        config.detector.update({"num_images": 900, "radius": 2 if dataset == "visa" else 0})
    if dataset in ("mvtec_ad", "visa", "real_iad"):
        config.evaluate.eval_size = 256
        config.threshold.holdout = 0.0
        # one model for all categories
        config.protocol.name = "unsupervised" if wanted.category else "multi_class"
    if wanted.quick:
        config.evaluate.eval_size = 0
        quick(config, {"layers": ("layer1", "layer2"), "class_layer": "layer3", "num_images": 10, "map_size": 0})
    return finish(config, wanted)
