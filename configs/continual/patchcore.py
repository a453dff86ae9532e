"""PatchCore (Roth et al., CVPR 2022), one category after another; the old coreset is all that is left of the past.

    python scripts/train.py --config=configs/continual/patchcore.py:synthetic
    python scripts/train.py --config=configs/continual/patchcore.py:mvtec_ad --config.data.root=DIR

Published for mvtec_ad, 15 tasks, after the last one: PUBLISHED below; forgetting there is 0.003, 0.002 and 0.001 (image AUROC,
pixel AUROC, PRO). The protocol here for mvtec_ad is that of IM-IAD's own PatchCore: 256 x 256 without crop, average pooling,
eq. 7 with 9 neighbours, no held-out images (so no threshold is fitted; add --config.threshold.holdout=0.1 for one). Their files
name coresets of 0.1 and of 0.001, and the table does not say which it took; here it is 0.1. They join the coresets of all
tasks; here the next coreset is one of the old rows and the new ones.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from iadjax.config import IM_IAD, Row, finish, load_config, parse_arg

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.919, "image_ap": 0.971, "pixel_auroc": 0.944, "pixel_ap": 0.481, "aupro": 0.847},
        "arXiv 2301.13359, results page, continual",
        IM_IAD | {"data.category": "all", "protocol.name": "continual", "detector.coreset_ratio": 0.1},
        "mean over the categories after the last task; coreset not stated",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of unsupervised/patchcore.py; all categories if it names none."""
    wanted = parse_arg(arg)
    config = load_config(f"unsupervised/patchcore.py:{arg}")
    config.protocol.name = "continual"
    config.data.category = config.data.category or "all"
    if wanted.dataset == "mvtec_ad" and not wanted.quick:
        # the protocol of IM-IAD
        config.data.update({"resize": 256, "crop": 0})
        config.detector.update({"embedding": "pool", "reweight": True, "num_neighbors": 9})
        config.threshold.holdout = 0.0
    return finish(config, wanted)
