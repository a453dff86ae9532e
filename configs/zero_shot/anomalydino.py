"""AnomalyDINO (Damm et al., WACV 2025) without training images: the unlabelled test images score each other.

    python scripts/train.py --config=configs/zero_shot/anomalydino.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/zero_shot/anomalydino.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/anomalydino.py:visa,category=pcb1 --config.data.root=DIR

Reference: github.com/dammsi/AnomalyDINO (Apache-2.0). Published for mvtec_ad and visa ("batched zero-shot"): PUBLISHED below.
The distance of a patch is the mean over the nearest thousandth of the patches of all other test images. The shorter side is 672
pixels; masks are those of few_shot/anomalydino.py. Nothing is held out, so no threshold is fitted.

Measured here: nothing yet on real images.
"""

from iadjax.config import Row, finish, load_config, parse_arg


def _row(dataset, image_auroc):
    protocol = {
        "data.resize": 672,
        "data.resize_side": "shorter",
        "data.interpolation": "bicubic",
        "data.crop_multiple": 14,
        "backbone.name": "dinov2_vits14",
        "protocol.name": "zero_shot",
        "protocol.test_batch": True,
        "detector.rotations": 1,
        "detector.nearest": 0.001,
        "detector.leave_out": True,
        "detector.top": 0.01,
        "threshold.holdout": 0.0,
    }
    masks = "masks for five categories" if dataset == "mvtec_ad" else "masks for all categories"
    return Row(dataset, {"image_auroc": image_auroc}, "arXiv 2405.14529, batched zero-shot", protocol, masks)


PUBLISHED = [_row("mvtec_ad", 0.942), _row("visa", 0.907)]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of few_shot/anomalydino.py."""
    wanted = parse_arg(arg)
    config = load_config(f"few_shot/anomalydino.py:{arg}")
    config.protocol.update({"name": "zero_shot", "test_batch": True, "rotations": 1, "shots_by_name": False})
    config.detector.update({"rotations": 1, "nearest": 0.001, "leave_out": True})
    if not wanted.quick and wanted.dataset in ("mvtec_ad", "visa"):
        config.data.resize = 672
    return finish(config, wanted)
