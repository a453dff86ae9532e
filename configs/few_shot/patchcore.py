"""PatchCore (Roth et al., CVPR 2022) from a few normal images, with rotated copies of them.

    python scripts/train.py --config=configs/few_shot/patchcore.py:synthetic:washer
    python scripts/train.py --config=configs/few_shot/patchcore.py:mvtec_ad:bottle --config.data.root=DIR

Published (MVTec AD mean, IM-IAD, Xie et al. 2023): image AUROC 0.619, 0.721, 0.817 and 0.864 for k = 1, 2, 4 and 8; with five
copies of each image 0.768, 0.798, 0.858 and 0.903 (--config.protocol.num_shots; their results page). The protocol here for
mvtec_ad is that of their own PatchCore: 256 x 256 without crop, average pooling, eq. 7 with 9 neighbours, no held-out images
(so no threshold is fitted; add --config.threshold.holdout=0.1 for one). Their files name coresets of 0.1 and of 0.001, and the
table does not say which it took; here all patches are kept.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from pathlib import Path

from iadjax.config import load_config


def get_config(arg: str = "synthetic"):
    """`arg`: as that of configs/unsupervised/patchcore.py."""
    config = load_config(f"{Path(__file__).parents[1] / 'unsupervised/patchcore.py'}:{arg}")
    config.protocol.update({"name": "few_shot", "num_shots": 4, "rotations": 5})
    # few patches: all of them are kept
    config.detector.coreset_ratio = 1.0
    if config.data.name == "mvtec_ad":
        # the protocol of IM-IAD
        config.data.update({"resize": 256, "crop": 0})
        config.detector.update({"embedding": "pool", "reweight": True, "num_neighbors": 9})
        config.threshold.holdout = 0.0
    return config
