"""AE-SSIM and AE-L2 (Bergmann et al., VISAPP 2019), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/ae.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/ae.py:mvtec_ad,category=grid --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ae.py:mvtec_ad,category=grid,detector.loss=l2 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ae.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ae.py:folder --config.data.root=DIR

Published figures (mvtec_ad, pixel AUROC 0.869 of AE-SSIM and 0.817 of AE-L2, means of a later compilation) are of a protocol
that differs between textures and objects and was not at hand. They are no row of this config, which has the schedule of the
paper on patches of 128 pixels. The augmentation is that of github.com/plutoyuxie/AutoEncoder-SSIM-for-unsupervised-anomaly-
detection-, which states no licence; nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ae", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 16})
    if wanted.quick:
        small = {"width": 16, "latent": 32, "patch": 64, "crops": 4, "steps": 400, "learning_rate": 2e-3}
        quick(config, small, batch_size=8)
    return finish(config, wanted)
