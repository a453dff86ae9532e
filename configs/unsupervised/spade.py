"""SPADE (Cohen & Hoshen, 2020), one model per category.

    python scripts/train.py --config=configs/unsupervised/spade.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/spade.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/spade.py:mvtec_ad,detector.num_images=5 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/spade.py:folder --config.data.root=DIR

Reference: github.com/byungjae89/SPADE-pytorch (Apache-2.0; not the authors'). Published for mvtec_ad: PUBLISHED below, of the
paper with 50 retrieved images and of that repository with 5. The repository leaves out up to 99 pixels of its gallery, and on a
current PyTorch it takes norms over another axis; here are all pixels, and the norms are those of features.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 224,
    "backbone.name": "wide_resnet50_2",
    "detector.layers": ("layer1", "layer2", "layer3"),
    "detector.class_layer": "layer4",
    "detector.num_neighbors": 1,
    "detector.sigma": 4.0,
    "threshold.holdout": 0.0,
}

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.855, "pixel_auroc": 0.965},
        "arXiv 2005.02357, tables 1 and 2",
        PROTOCOL | {"detector.num_images": 50},
    ),
    Row(
        "mvtec_ad",
        {"image_auroc": 0.854, "pixel_auroc": 0.964},
        "github.com/byungjae89/SPADE-pytorch, README",
        PROTOCOL | {"detector.num_images": 5},
        "its gallery is cut to a multiple of 100 pixels",
        "mvtec_ad,detector.num_images=5",
    ),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("spade", wanted.dataset)
    config.backbone.name = "wide_resnet50_2"
    config.data.update({"resize": 256, "crop": 224})
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.quick:
        quick(config, {"class_layer": "layer3", "num_images": 10})
    return finish(config, wanted)
