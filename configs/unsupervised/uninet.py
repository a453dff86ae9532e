"""UniNet (Wei et al., CVPR 2025), one model per category.

    python scripts/train.py --config=configs/unsupervised/uninet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/uninet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/uninet.py:btad,category=01 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/uninet.py:folder --config.data.root=DIR

Reference: github.com/pangdatangtt/UniNet (MIT). Published for mvtec_ad and btad: PUBLISHED below. Of every tenth epoch the
authors keep the one with the best PRO on the test images, and stop after three without a gain; ours is the last of 100. They
set the temperature of some categories of mvtec_ad by hand (SHARP), and more for transistor. One category has these values here
too; several have the uniform ones.

No training images are held out for mvtec_ad and btad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

SHARP = ("transistor", "pill", "cable", "bottle", "grid", "foam")
PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.interpolation": "lanczos",
    "data.batch_size": 8,
    "backbone.name": "wide_resnet50_2",
    "detector.learned_theta": False,
    "detector.temperature": 2.0,
    "detector.epochs": 100,
    "detector.learning_rate": 5e-3,
    "detector.target_rate": 1e-6,
    "threshold.holdout": 0.0,
}
SOURCE, SELECTED = "github.com/pangdatangtt/UniNet, saved_results", "best epoch on the test images, values by category"
PUBLISHED = [
    Row("mvtec_ad", {"image_auroc": 0.9989, "pixel_auroc": 0.9882, "aupro": 0.9606}, SOURCE, PROTOCOL, SELECTED),
    Row("btad", {"image_auroc": 0.9793, "pixel_auroc": 0.9767, "aupro": 0.8017}, SOURCE, PROTOCOL, SELECTED),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("uninet", wanted.dataset)
    config.data.update({"resize": 256, "interpolation": "lanczos", "batch_size": 8})
    config.backbone.name = "wide_resnet50_2"
    # in the authors' code no optimiser knows theta
    config.detector.learned_theta = False
    if wanted.dataset in ("mvtec_ad", "btad"):
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset == "mvtec_ad" and wanted.category in SHARP:
        config.detector.temperature = 0.1
    if wanted.dataset == "mvtec_ad" and wanted.category == "transistor":
        config.detector.update({"selection": False, "target_rate": 1e-4})
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
    if wanted.quick:
        # one category has few images; the selection is made for features of pretrained networks
        small = {"selection": False, "temperature": 0.1, "learning_rate": 1e-3, "epochs": 25 if wanted.category else 4}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
