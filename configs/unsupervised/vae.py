"""Variational autoencoder with its gradient map (Zimmerer et al., MICCAI 2019), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/vae.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/vae.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/vae.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/vae.py:folder --config.data.root=DIR

Published figures are of medical images: they are no row of this config, whose network and schedule are those of Bergmann et
al., VISAPP 2019. Other maps are --config.detector.map=error, elbo and kl.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("vae", wanted.dataset)
    config.data.update({"resize": 128, "batch_size": 32})
    if wanted.quick:
        small = {"width": 16, "latent": 32, "beta": 0.01, "learning_rate": 2e-3, "epochs": 60 if wanted.category else 6}
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
