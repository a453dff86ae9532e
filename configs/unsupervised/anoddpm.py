"""AnoDDPM (Wyatt et al., CVPR Workshops 2022), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/anoddpm.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/anoddpm.py:mvtec_ad,category=leather --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/anoddpm.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/anoddpm.py:folder --config.data.root=DIR

Published: nothing for these data sets but pictures of leather. The paper measures brain scans.

An image takes 250 passes of the network. --config.detector.sampling_steps=25 takes a tenth of them, by DDIM.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

# the authors' figures are of other data sets
PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("anoddpm", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 1})
    if wanted.quick:
        small = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (16,), "wavelength": 16.0, "octaves": 4}
        small |= {"steps": 600, "learning_rate": 1e-3, "decay": 0.98, "sampling_steps": 10}
        quick(config, small, resize=32, batch_size=8)
    return finish(config, wanted)
