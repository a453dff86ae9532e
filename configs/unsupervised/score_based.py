"""Score-based (Teng et al., 2022), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/score_based.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/score_based.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/score_based.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/score_based.py:folder --config.data.root=DIR

--config.detector.measure=error restores the image by predictor and corrector instead.

Published figures were not to be had, nor was code of the authors. Constants of training are those of a relative, Shin et al.
(ICCV 2023), whose images are 192 x 192 in batches of 16; its code (github.com/Lee-JongHyeon/
Anomaly-Detection-using-Score-based-Perturbation-Resilience) has no licence, and nothing of it is here.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("score_based", wanted.dataset)
    config.data.update({"resize": 192, "batch_size": 16})
    if wanted.quick:
        small = {"width": 16, "multipliers": (1, 2, 2), "blocks": 1, "attention": (), "heads": 1, "window": 7}
        small |= {"learning_rate": 2e-3, "decay": 0.99, "epochs": 60 if wanted.category else 6}
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
