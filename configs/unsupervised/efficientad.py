"""EfficientAD-S (Batzner et al., WACV 2024), one model per category; -M with backbone.name=pdn_medium.

    python scripts/train.py --config=configs/unsupervised/efficientad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/efficientad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/efficientad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/efficientad.py:folder --config.data.root=DIR

Published for mvtec_ad, visa and mvtec_loco: PUBLISHED below. A tenth of the training images is held out for the quantiles of
the maps (`threshold.holdout`). The teacher comes with iadjax (iadjax/backbones/packaged/pdn_small.md); scripts/distill.py makes
others (--config.backbone.weights=FILE). Penalty images are drawn, or come from a folder (--config.detector.penalty_images=DIR).

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

SOURCE = "arXiv 2303.14535"
NOTES = "a teacher distilled from Wide ResNet-101-2; penalty images of ImageNet (detector.penalty_images=DIR)"


def _row(dataset, image_auroc, backbone="pdn_small"):
    protocol = {
        "data.resize": 256,
        "data.crop": 0,
        "data.batch_size": 1,
        "backbone.name": backbone,
        "detector.steps": 70000,
        "detector.learning_rate": 1e-4,
        "threshold.holdout": 0.1,
    }
    arg = dataset if backbone == "pdn_small" else f"{dataset},backbone.name={backbone}"
    return Row(dataset, {"image_auroc": image_auroc}, SOURCE, protocol, NOTES, arg)


PUBLISHED = [
    _row("mvtec_ad", 0.988),
    _row("mvtec_ad", 0.991, "pdn_medium"),
    _row("visa", 0.975),
    _row("visa", 0.981, "pdn_medium"),
    _row("mvtec_loco", 0.900),
    _row("mvtec_loco", 0.907, "pdn_medium"),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("efficientad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 1})
    config.backbone.name = "pdn_small"
    # calibrates the maps, and the threshold too
    config.threshold.holdout = 0.1
    if wanted.quick:
        quick(config, {"steps": 40, "learning_rate": 5e-4}, batch_size=1)
        # only a PDN can be its teacher
        config.backbone.update({"name": "pdn_small", "weights": ""})
    return finish(config, wanted)
