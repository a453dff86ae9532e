"""INP-Former (Luo et al., CVPR 2025) from a few normal images of each category, one model for all.

    python scripts/train.py --config=configs/few_shot/inpformer.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/few_shot/inpformer.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/inpformer.py:visa --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/inpformer.py:folder --config.data.root=DIR

Reference: github.com/luow23/INP-Former, MIT. Published for mvtec_ad and visa with 1 and 4 shots: PUBLISHED below. The authors
train 200 epochs on 22 views of each shot. Here an epoch has one view of each, drawn at random, so that there are 22 times as
many.

No training images are held out for them, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, finish, load_config, parse_arg


def _row(dataset, shots, image_auroc, pixel_auroc, aupro):
    protocol = {
        "data.category": "all",
        "data.resize": 448,
        "data.resize_side": "both",
        "data.crop": 392,
        "data.batch_size": 16,
        "backbone.name": "dinov2_vitb14_reg_offset",
        "protocol.name": "few_shot",
        "protocol.num_shots": shots,
        "evaluate.eval_size": 256,
        "threshold.holdout": 0.0,
        "detector.views": True,
        "detector.epochs": 22 * 200,
    }
    figures = {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc, "aupro": aupro}
    source = "arXiv 2503.02424, table of few-shot results"
    return Row(dataset, figures, source, protocol, "views drawn at random", f"{dataset},protocol.num_shots={shots}")


PUBLISHED = [
    _row("mvtec_ad", 1, 0.966, 0.970, 0.926),
    _row("mvtec_ad", 4, 0.976, 0.970, 0.929),
    _row("visa", 1, 0.914, 0.963, 0.895),
    _row("visa", 4, 0.964, 0.977, 0.931),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = load_config(f"multi_class/inpformer.py:{arg}")
    config.protocol.update({"name": "few_shot", "num_shots": 4})
    config.detector.update({"views": True, "epochs": 22 * (10 if wanted.quick else 200)})
    return finish(config, wanted)
