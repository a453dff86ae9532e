"""Dinomaly (Guo et al., CVPR 2025), one model per category.

    python scripts/train.py --config=configs/unsupervised/dinomaly.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/dinomaly.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dinomaly.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dinomaly.py:folder --config.data.root=DIR

Reference: github.com/guojiajeremy/Dinomaly, Apache-2.0. Published for mvtec_ad and visa: PUBLISHED below. The protocol is that
of multi_class/dinomaly.py with half of the steps and, as in the authors' files for single categories, an epsilon of 1e-8.

No training images are held out for them, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, finish, load_config, parse_arg


def _row(dataset, image_auroc, pixel_ap, aupro):
    protocol = {
        "data.resize": 448,
        "data.resize_side": "both",
        "data.crop": 392,
        "data.batch_size": 16,
        "backbone.name": "dinov2_vitb14_reg_offset",
        "protocol.name": "unsupervised",
        "evaluate.eval_size": 256,
        "threshold.holdout": 0.0,
        "detector.steps": 5000,
        "detector.dropout": 0.2,
        "detector.epsilon": 1e-8,
    }
    figures = {"image_auroc": image_auroc, "pixel_ap": pixel_ap, "aupro": aupro}
    source = "arXiv 2503.02424, table of single-class results"
    return Row(dataset, figures, source, protocol, "as INP-Former's authors quote it; PRO in 200 steps of the score")


PUBLISHED = [_row("mvtec_ad", 0.997, 0.689, 0.950), _row("visa", 0.989, 0.507, 0.951)]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = load_config(f"multi_class/dinomaly.py:{arg}")
    config.protocol.name = "unsupervised"
    config.data.category = wanted.category
    if not wanted.quick:
        config.detector.update({"steps": 5000, "epsilon": 1e-8, "dropout": 0.2})
    return finish(config, wanted)
