"""AnomalyDINO (Damm et al., WACV 2025) from a few normal images.

    python scripts/train.py --config=configs/few_shot/anomalydino.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mvtec_ad_2,category=can --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/anomalydino.py:folder --config.data.root=DIR

Published for mvtec_ad and visa: PUBLISHED below. The authors' protocol, here for both: the shots are the first files by name
(seed s takes the next ones), each is rotated eight times before the resize, the shorter side becomes 448 pixels (bicubic, the
aspect is kept), and images are cropped from the top left to multiples of the patch, 14. Masks are on for five categories of
mvtec_ad and for all of visa. Maps are smoothed at the original resolution, sigma 4.

No training images are held out for mvtec_ad and visa, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Nothing is quoted for mvtec_ad_2, whose protocol is that of docs/data.md: 16 full-size images in tiles, the threshold from
normal images alone.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, ad2, base_config, finish, parse_arg, quick

# the authors' table: where the background is masked
MASKED = ("capsule", "hazelnut", "pill", "screw", "toothbrush")


def _row(dataset, shots, image_auroc):
    protocol = {
        "data.resize": 448,
        "data.resize_side": "shorter",
        "data.interpolation": "bicubic",
        "data.crop_multiple": 14,
        "backbone.name": "dinov2_vits14",
        "protocol.num_shots": shots,
        "protocol.shots_by_name": True,
        "protocol.rotations": 8,
        "detector.rotations": 1,
        "detector.top": 0.01,
        "threshold.holdout": 0.0,
    }
    masks = "masks for five categories" if dataset == "mvtec_ad" else "masks for all categories"
    return Row(
        dataset,
        {"image_auroc": image_auroc},
        "arXiv 2405.14529, table of few-shot results",
        protocol,
        f"agnostic setting; {masks}",
        f"{dataset},protocol.num_shots={shots}",
    )


PUBLISHED = [
    *(_row("mvtec_ad", shots, value) for shots, value in ((1, 0.966), (2, 0.969), (4, 0.977))),
    *(_row("visa", shots, value) for shots, value in ((1, 0.874), (2, 0.897), (4, 0.926))),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    dataset = wanted.dataset
    config = base_config("anomalydino", dataset)
    config.protocol.update({"name": "few_shot", "num_shots": 1})
    config.data.update({"resize": 448, "interpolation": "bicubic", "batch_size": 1})
    config.backbone.name = "dinov2_vits14"
    if dataset in ("mvtec_ad", "visa"):
        # references are rotated by the protocol, at their own resolution, instead of by the detector
        config.protocol.update({"shots_by_name": True, "rotations": 8})
        masking = dataset == "visa" or wanted.category in MASKED
        config.detector.update({"rotations": 1, "masking": masking, "sigma": 0.0})
        config.evaluate.map_sigma = 4.0
        config.data.update({"resize_side": "shorter", "crop_multiple": 14})
        config.threshold.holdout = 0.0
    if dataset in ("mtd", "mtd_300"):
        config.protocol.num_shots = 4
        config.data.update({"resize": 256, "interpolation": "bilinear"})
        config.backbone.name = "resnet18"
        config.detector.layers = ("layer2", "layer3")
    if dataset.startswith("mvtec_ad_2"):
        # 32 x 32 patches of 14 pixels; products lie the same way
        ad2(config, tile=448)
        config.protocol.num_shots = 16
        config.detector.rotations = 1
    if wanted.quick:
        config.protocol.update({"num_shots": 4, "rotations": 1})
        quick(config, {"layers": ("layer1", "layer2"), "rotations": 1}, batch_size=8)
    return finish(config, wanted)
