"""PatchCore (Roth et al., CVPR 2022) with anomalies among its training images, which pass for normal.

    python scripts/train.py --config=configs/noisy/patchcore.py:synthetic,category=washer
    python scripts/train.py --config=configs/noisy/patchcore.py:mvtec_ad,category=bottle --config.data.root=DIR

Published for mvtec_ad at ratios from 0.05 to 0.20: PUBLISHED below. The protocol here for mvtec_ad is that of IM-IAD's own
PatchCore: 256 x 256 without crop, average pooling, eq. 7 with 9 neighbours, no held-out images (so no threshold is fitted; add
--config.threshold.holdout=0.1 for one). Their files name coresets of 0.1 and of 0.001, and the table does not say which it
took; here it is 0.1.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from iadjax.config import IM_IAD, Row, finish, load_config, parse_arg


def _row(ratio, image_auroc):
    protocol = {"protocol.name": "noisy", "protocol.noise_ratio": ratio, "detector.coreset_ratio": 0.1}
    return Row(
        "mvtec_ad",
        {"image_auroc": image_auroc},
        "arXiv 2301.13359, table XII, 9 neighbours",
        IM_IAD | protocol,
        "coreset not stated",
        f"mvtec_ad,protocol.noise_ratio={ratio}",
    )


PUBLISHED = [_row(0.05, 0.990), _row(0.1, 0.983), _row(0.15, 0.984), _row(0.2, 0.982)]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of unsupervised/patchcore.py."""
    wanted = parse_arg(arg)
    config = load_config(f"unsupervised/patchcore.py:{arg}")
    config.protocol.update({"name": "noisy", "noise_ratio": 0.1})
    if wanted.dataset == "mvtec_ad" and not wanted.quick:
        # the protocol of IM-IAD
        config.data.update({"resize": 256, "crop": 0})
        config.detector.update({"embedding": "pool", "reweight": True, "num_neighbors": 9})
        config.threshold.holdout = 0.0
    return finish(config, wanted)
