"""MSTUnet (Jiang et al., IEEE TII 2023), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/mstunet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/mstunet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/mstunet.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/mstunet.py:folder --config.data.root=DIR

No published row can be quoted: the authors published no code, and the paper's schedule and constants could not be confirmed.
Without --config.detector.textures=DIR, textures of anomalies are drawn.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("mstunet", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.quick:
        network = {"width": 16, "depths": (2, 2), "heads": (2, 4), "window": 4, "segment_width": 16, "cell": 8}
        # one category has few images
        schedule = {"learning_rate": 2e-3, "pool_size": 5, "epochs": 20 if wanted.category else 2}
        quick(config, network | schedule, resize=64, batch_size=8)
    return finish(config, wanted)
