"""INP-Former (Luo et al., CVPR 2025), one model per category.

    python scripts/train.py --config=configs/unsupervised/inpformer.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/inpformer.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/inpformer.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/inpformer.py:folder --config.data.root=DIR

Reference: github.com/luow23/INP-Former, MIT. Published for mvtec_ad and visa: PUBLISHED below. The protocol is that of
multi_class/inpformer.py.

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
        "detector.epochs": 200,
    }
    figures = {"image_auroc": image_auroc, "pixel_ap": pixel_ap, "aupro": aupro}
    return Row(dataset, figures, "arXiv 2503.02424, table of single-class results", protocol)


PUBLISHED = [_row("mvtec_ad", 0.997, 0.702, 0.954), _row("visa", 0.985, 0.492, 0.938)]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = load_config(f"multi_class/inpformer.py:{arg}")
    config.protocol.name = "unsupervised"
    config.data.category = wanted.category
    return finish(config, wanted)
