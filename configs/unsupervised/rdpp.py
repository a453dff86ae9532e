"""RD++ (Tien et al., CVPR 2023), one model per category.

    python scripts/train.py --config=configs/unsupervised/rdpp.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/rdpp.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rdpp.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rdpp.py:folder --config.data.root=DIR

Reference: github.com/tientrandinh/Revisiting-Reverse-Distillation (MIT). Published for mvtec_ad: PUBLISHED below. The authors
set the epochs of each category by hand (EPOCHS) and report the best epoch on the test images. One category of mvtec_ad has its
epochs here too; several have 200, a uniform setting. In their code every second batch trains nothing (see the detector).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

EPOCHS = {
    **dict.fromkeys(("carpet", "leather"), 10),
    "wood": 100,
    **dict.fromkeys(("hazelnut", "metal_nut"), 160),
    **dict.fromkeys(("pill", "bottle"), 200),
    "cable": 240,
    **dict.fromkeys(("grid", "tile"), 260),
    **dict.fromkeys(("screw", "toothbrush"), 280),
    **dict.fromkeys(("capsule", "transistor", "zipper"), 300),
}

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.9944, "pixel_auroc": 0.9825, "aupro": 0.9499},
        "github.com/tientrandinh/Revisiting-Reverse-Distillation, README",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 16,
            "backbone.name": "wide_resnet50_2",
            "detector.projection_weight": 0.2,
            "detector.projection_rate": 1e-3,
            "detector.learning_rate": 5e-3,
            "threshold.holdout": 0.0,
        },
        "epochs by category, best epoch on the test images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("rdpp", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
        config.detector.epochs = EPOCHS.get(wanted.category, 200)
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.data.batch_size = 8
    if wanted.quick:
        # one category has few images
        quick(config, {"epochs": 250 if wanted.category else 10}, batch_size=8)
    return finish(config, wanted)
