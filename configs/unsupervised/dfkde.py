"""DFKDE (Akcay et al., ICIP 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/dfkde.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/dfkde.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dfkde.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dfkde.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, from the README of anomalib (Apache-2.0), of which DFKDE is a part. Its tables do not
say with which weights of the network.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick


def _row(network, image_auroc):
    return Row(
        "mvtec_ad",
        {"image_auroc": image_auroc},
        "github.com/open-edge-platform/anomalib, README of DFKDE",
        {
            "data.resize": 256,
            "data.crop": 0,
            "backbone.name": network,
            "detector.layers": ("layer4",),
            "detector.num_components": 16,
            "detector.scaling": "scale",
            "threshold.holdout": 0.0,
        },
        "",
        f"mvtec_ad,backbone.name={network}",
    )


PUBLISHED = [_row("wide_resnet50_2", 0.774), _row("resnet18", 0.762)]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("dfkde", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "resnet18"
    if wanted.dataset == "mvtec_ad":
        # anomalib holds out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        quick(config, {"layers": ("layer1", "layer2", "layer3")}, batch_size=16)
    return finish(config, wanted)
