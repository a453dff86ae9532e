"""FoundAD (Zhai et al., ICLR 2026) from a few normal images of each category, one model for all.

    python scripts/train.py --config=configs/few_shot/foundad.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/few_shot/foundad.py:mvtec_ad --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/foundad.py:visa --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/foundad.py:folder --config.data.root=DIR

Reference: github.com/ymxlzgy/FoundAD, no licence: written from facts. Published for mvtec_ad and visa with 1, 2 and 4 shots:
PUBLISHED below. The authors drop the last batch of an epoch where it is not full; here it counts. They paste patches on the
product, by thresholds for each category; here patches lie anywhere. The weights of DINOv3 have a licence of their own:
--config.backbone.weights=FILE, or --config.backbone.name=dinov2_vitb14 with --config.data.resize=518.

No training images are held out for them, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick


def _row(dataset, shots, image_auroc, image_ap, pixel_auroc):
    protocol = {
        "data.category": "all",
        "data.resize": 512,
        "data.resize_side": "both",
        "data.batch_size": 8,
        "backbone.name": "dinov3_vitb16",
        "protocol.name": "few_shot",
        "protocol.num_shots": shots,
        "evaluate.eval_size": 512,
        "threshold.holdout": 0.0,
        "detector.layers": ("block10.norm",),
        "detector.top_k": 6 if dataset == "visa" else 10,
        "detector.epochs": 2000,
        "detector.learning_rate": 1e-3,
    }
    figures = {"image_auroc": image_auroc, "image_ap": image_ap, "pixel_auroc": pixel_auroc}
    notes = "mean of three draws; anomalib says 4000 epochs of the paper, the authors' file has 2000"
    source = "arXiv 2510.01934, tables of few-shot results, as anomalib 2.7.0 quotes them"
    return Row(dataset, figures, source, protocol, notes, f"{dataset},protocol.num_shots={shots}")


PUBLISHED = [
    _row("mvtec_ad", 1, 0.961, 0.979, 0.968),
    _row("mvtec_ad", 2, 0.968, 0.983, 0.970),
    _row("mvtec_ad", 4, 0.971, 0.986, 0.972),
    _row("visa", 1, 0.926, 0.920, 0.997),
    _row("visa", 2, 0.935, 0.930, 0.997),
    _row("visa", 4, 0.944, 0.940, 0.997),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("foundad", wanted.dataset)
    config.protocol.update({"name": "few_shot", "num_shots": 1})
    config.data.update({"category": "all", "resize": 512, "resize_side": "both", "batch_size": 8})
    config.backbone.name = "dinov3_vitb16"
    config.evaluate.eval_size = 512
    if wanted.dataset in ("mvtec_ad", "visa"):
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.dataset == "visa":
        config.detector.top_k = 6
    if wanted.dataset in ("mtd", "mtd_300"):
        config.data.category = ""
    if wanted.quick:
        config.protocol.num_shots = 8
        small = {"layers": ("layer2",), "width": 48, "depth": 2, "heads": 4, "epochs": 150}
        quick(config, small, batch_size=8)
        config.evaluate.eval_size = 0
    return finish(config, wanted)
