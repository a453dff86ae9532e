"""OCR-GAN (Liang et al., TIP 2023), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/ocrgan.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/ocrgan.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ocrgan.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ocrgan.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, from secondary pages. The authors take the epoch that is best on the test set, and
their layers of channel selection are drawn anew in every pass. This config trains these layers and takes the last epoch. The
authors' code (github.com/zhangzjn/OCR-GAN) is under the MIT licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.batch_size": 32,
    "detector.width": 64,
    "detector.latent": 100,
    "detector.saturated": True,
    "detector.epochs": 200,
    "detector.learning_rate": 2e-4,
    "threshold.holdout": 0.0,
}
PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.983},
        "arXiv 2203.00259, from secondary pages",
        PROTOCOL,
        "best epoch on the test set; channel selection by layers that are drawn in every pass",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ocrgan", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 32})
    if wanted.dataset == "mvtec_ad":
        config.detector.saturated = True
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 8, "discriminator_width": 8, "latent": 16, "learning_rate": 1e-3, "saturated": False, "cutout": 5}
        # one category has few images
        quick(config, small | {"epochs": 60 if wanted.category else 6}, resize=64, batch_size=8)
    return finish(config, wanted)
