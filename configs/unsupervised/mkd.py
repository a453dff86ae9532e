"""MKD (Salehi et al., CVPR 2021), one model per category.

    python scripts/train.py --config=configs/unsupervised/mkd.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/mkd.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/mkd.py:folder --config.data.root=DIR

Reference: github.com/rohban-lab/Knowledge_Distillation_AD (no licence; nothing is taken from it). Published for mvtec_ad:
PUBLISHED below; the authors evaluate every tenth epoch on the test images. Their maps for MVTec AD are of guided
back-propagation, scaled image by image (map_kind, normalize_map), and thresholded maps are opened and closed before the pixel
AUROC, which is not done here: no pixel figure is quoted.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.8774},
        "arXiv 2011.11108, table of MVTec AD",
        {
            "data.resize": 128,
            "data.crop": 0,
            "data.batch_size": 64,
            "backbone.name": "vgg16",
            "detector.layers": ("pool2", "pool3", "pool4", "pool5"),
            "detector.num_scored": 3,
            "detector.width": 16,
            "detector.value_weight": 0.5,
            "detector.epochs": 601,
            "detector.learning_rate": 1e-3,
            "detector.raw_pixels": True,
            "threshold.holdout": 0.0,
        },
        "best of the epochs that were evaluated on the test images",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("mkd", wanted.dataset)
    config.data.update({"resize": 128, "batch_size": 64})
    config.backbone.name = "vgg16"
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.quick:
        # one category has few images; a smaller image than the protocol's would tell nothing
        options = {"layers": ("layer1", "layer2", "layer3"), "epochs": 50 if wanted.category else 4, "raw_pixels": False}
        quick(config, options, batch_size=8)
        config.data.resize = 96
    return finish(config, wanted)
