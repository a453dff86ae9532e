"""SCADN (Yan et al., AAAI 2021), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/scadn.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/scadn.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/scadn.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/scadn.py:folder --config.data.root=DIR

The published figure (mvtec_ad: image AUROC 0.818) is known here from secondary pages alone, so that no row quotes it. The
authors keep the epoch that restores training images best; this config takes the last one. Their code
(github.com/Xudong-Yan/SCADN) has no licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("scadn", wanted.dataset)
    config.data.update({"resize": 512, "batch_size": 4})
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 8, "blocks": 2, "discriminator_width": 8, "learning_rate": 2e-3, "discriminator_rate": 2e-4}
        # after so few steps the error is large everywhere
        small["top"] = 0.01
        # one category has few images
        quick(config, small | {"epochs": 80 if wanted.category else 8}, resize=64, batch_size=4)
    return finish(config, wanted)
