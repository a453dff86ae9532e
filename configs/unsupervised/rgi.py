"""RGI and R-RGI (Mou et al., ICLR 2023), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/rgi.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/rgi.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rgi.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/rgi.py:folder --config.data.root=DIR

R-RGI is --config.detector.relaxed=True --config.detector.sparsity=0.1.

Published figures are of BTAD's product 03 with defects drawn into it, per image and after scaling each map by its own least and
largest value; for R-RGI lambda is chosen by the defect. They are no row of this config. The authors' GAN is a progressive one
that sees images of 128 x 128; here it is a DCGAN. Their code (github.com/Shancong-Mou/RGI_Robust_GAN-inversion) has no licence;
nothing of it is here.

The quick form trains the GAN for some minutes on few images. Its drawings miss objects away from the middle, so that normal
images there have masks too: it ranks images worse than the quick forms of other detectors.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("rgi", wanted.dataset)
    config.data.update({"resize": 128, "batch_size": 16})
    if wanted.quick:
        small = {"width": 16, "latent": 32, "learning_rate": 1e-3, "steps": 2000, "starts": 200, "iterations": 150}
        quick(config, small, resize=32)
    return finish(config, wanted)
