"""MuSc (Li et al., ICLR 2024): the unlabelled test images score each other.

    python scripts/train.py --config=configs/zero_shot/musc.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/zero_shot/musc.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/musc.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/musc.py:btad,category=01 --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/musc.py:mvtec_ad,network=dinov2_vitb14 --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/musc.py:folder --config.data.root=DIR

Reference: github.com/xrli-U/MuSc (MIT). `network` is clip_vitl14_336 (the paper's), dinov2_vitb14 or dinov2_vitl14. Published
for mvtec_ad, visa and btad: PUBLISHED below, of the README's tables of backbones (the paper: 0.978 and 0.928).
Images are 518 x 518, bicubic for CLIP and bilinear for DINOv2. Tokens of DINOv2 come after its last norm, and its class tokens
are no unit vectors in the authors' code. Scores of visa are means over more neighbours. The authors compute in float16, here in
float32.

A run takes N^2 products of 1369 x 1369 patches, twelve times, for N test images: hours on two CPU cores, seconds on a GPU
(scripts/benchmarks/musc.py measures it). Nothing is held out, so no threshold is fitted.

Measured here: results/musc_cpu.json, made by scripts/benchmarks/musc.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick
from iadjax.errors import UserError

BLOCKS = {"clip_vitl14_336": (6, 12, 18, 24), "dinov2_vitb14": (3, 6, 9, 12), "dinov2_vitl14": (6, 12, 18, 24)}


def _network(name):
    """What the configs of the authors have for a network."""
    clip = name.startswith("clip")
    return {
        # the authors resize CLIP's positions by the exact ratio, without antialiasing
        "backbone.name": "clip_vitl14_336_exact" if clip else name,
        "data.interpolation": "bicubic" if clip else "bilinear",
        "detector.layers": tuple(f"block{i}" if clip else f"block{i}.norm" for i in BLOCKS[name]),
        "detector.class_layer": "embedding" if clip else "class",
        "detector.normalize_class": clip,
    }


def _row(dataset, network, image_auroc, image_ap, pixel_auroc, pixel_ap, aupro):
    protocol = {
        "data.resize": 518,
        "protocol.name": "zero_shot",
        "protocol.test_batch": True,
        "detector.degrees": (1, 3, 5),
        "detector.lowest": 0.3,
        "detector.neighbors": (1, 8, 9) if dataset == "visa" else (1, 2, 3),
        "evaluate.eval_size": 518,
        "threshold.holdout": 0.0,
    }
    return Row(
        dataset,
        dict(image_auroc=image_auroc, image_ap=image_ap, pixel_auroc=pixel_auroc, pixel_ap=pixel_ap, aupro=aupro),
        "github.com/xrli-U/MuSc, README, results of different backbones (arXiv 2401.16753)",
        protocol | _network(network),
        network,
        f"{dataset},network={network}",
    )


PUBLISHED = [
    _row("mvtec_ad", "clip_vitl14_336", 0.9777, 0.9907, 0.9711, 0.6226, 0.9345),
    _row("visa", "clip_vitl14_336", 0.9257, 0.9331, 0.9871, 0.4538, 0.9243),
    _row("btad", "clip_vitl14_336", 0.9616, 0.9785, 0.9735, 0.5715, 0.8343),
    _row("mvtec_ad", "dinov2_vitb14", 0.9631, 0.9832, 0.9807, 0.6531, 0.9559),
    _row("visa", "dinov2_vitb14", 0.9025, 0.9086, 0.9866, 0.4123, 0.9180),
    _row("btad", "dinov2_vitb14", 0.9499, 0.9855, 0.9830, 0.6889, 0.8041),
    _row("mvtec_ad", "dinov2_vitl14", 0.9708, 0.9882, 0.9834, 0.6739, 0.9616),
    _row("visa", "dinov2_vitl14", 0.9173, 0.9227, 0.9878, 0.4279, 0.9240),
    _row("btad", "dinov2_vitl14", 0.9562, 0.9876, 0.9840, 0.6990, 0.8247),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,network=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg, network="clip_vitl14_336")
    network = wanted.options["network"]
    if network not in BLOCKS:
        raise UserError(f"the config argument {arg!r} names no network of the authors; take one of {', '.join(BLOCKS)}")
    config = base_config("musc", wanted.dataset)
    config.protocol.update({"name": "zero_shot", "test_batch": True})
    config.data.update({"resize": 518, "batch_size": 4})
    for key, value in _network(network).items():
        section, name = key.split(".")
        config[section][name] = value
    if wanted.dataset in ("mvtec_ad", "visa", "btad"):
        config.evaluate.eval_size = 518
        config.threshold.holdout = 0.0
    if wanted.dataset == "visa":
        config.detector.neighbors = (1, 8, 9)
    if wanted.quick:
        config.evaluate.eval_size = 0
        quick(config, {"layers": ("layer1", "layer2"), "class_layer": "layer3", "normalize_class": True}, batch_size=8)
    return finish(config, wanted)
