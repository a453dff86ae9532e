"""DiffusionAD (Zhang et al., TPAMI 2025), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/diffusionad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/diffusionad.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/diffusionad.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/diffusionad.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The row needs DTD: give it with --config.detector.textures=DIR; without it textures are
drawn. The authors draw anomalies within published masks of the foreground, and keep the best epoch on the test set. Here the
last epoch counts, and anomalies are drawn anywhere, or within Otsu's dark or bright part of the image (detector.foreground).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.997, "pixel_auroc": 0.987, "aupro": 0.957, "pixel_ap": 0.761},
        "arXiv 2303.08730",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 16,
            "detector.width": 128,
            "detector.epochs": 3000,
            "threshold.holdout": 0.0,
        },
        "best epoch on the test set; textures of DTD, within masks of the foreground",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("diffusionad", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 16, "multipliers": (1,), "blocks": 1, "attention": (), "segment_width": 16, "top": 10}
        # so few steps ask for more anomalies, and for a segmentation that counts more and never rests
        small |= {"anomaly_prob": 0.8, "focal_weight": 50.0, "half_period": 100_000}
        small |= {"denoiser_rate": 1e-3, "segment_rate": 5e-3}
        # one category has few images
        quick(config, small | {"epochs": 35 if wanted.category else 4}, resize=32, batch_size=8)
    return finish(config, wanted)
