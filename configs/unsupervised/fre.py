"""FRE (Ndiour et al., 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/fre.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/fre.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fre.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/fre.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, of anomalib's implementation (Apache-2.0) by the paper's authors.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick


def _row(network, image_auroc):
    return Row(
        "mvtec_ad",
        {"image_auroc": image_auroc},
        "github.com/open-edge-platform/anomalib, README of FRE",
        {
            "data.resize": 256,
            "data.crop": 0,
            "backbone.name": network,
            "detector.layer": "layer3",
            "detector.pooling": 2,
            "detector.latent": 220,
            "detector.epochs": 220,
            "threshold.holdout": 0.0,
        },
        "anomalib's figures, not the paper's",
        f"mvtec_ad,backbone.name={network}",
    )


PUBLISHED = [_row("wide_resnet50_2", 0.947), _row("resnet50", 0.933)]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("fre", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # anomalib holds out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
    if wanted.quick:
        quick(config, {"layer": "layer2", "latent": 20, "epochs": 60, "learning_rate": 1e-3}, batch_size=16)
    return finish(config, wanted)
