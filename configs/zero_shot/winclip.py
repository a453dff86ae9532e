"""WinCLIP (Jeong et al., CVPR 2023) without any image: CLIP and texts.

    python scripts/train.py --config=configs/zero_shot/winclip.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/winclip.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/winclip.py:folder,detector.object_name=bolt --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/winclip.py:synthetic,category=washer,quick

Published for mvtec_ad and visa: PUBLISHED below. The protocol: OpenCLIP ViT-B/16+ (LAION-400M), the shorter side becomes 240
pixels (bicubic), cropped to 240 x 240 in the centre; windows of 2 x 2 and 3 x 3 patches; 154 normal and 88 anomalous prompts
with the category's name. No images are held out and none are trained on.

The authors have no public code. Facts are from the paper, and from anomalib (Apache-2.0) and caoyunkang/WinClip (MIT), which
differ from each other: see `detector.normalize_prompts`. `quick` has random weights: it shows that the parts run, not what
CLIP finds.

Measured here: not yet, because it needs CLIP's weights.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 240,
    "data.crop": 240,
    "data.interpolation": "bicubic",
    "backbone.name": "clip_vitb16plus_240",
    "networks.text.name": "clip_vitb16plus_240_text",
    "detector.windows": (2, 3),
    "detector.temperature": 0.07,
    "protocol.name": "zero_shot",
    "protocol.test_batch": False,
    "threshold.holdout": 0.0,
}
SOURCE = "arXiv 2303.14814, tables of zero-shot results"

PUBLISHED = [
    Row("mvtec_ad", {"image_auroc": 0.918, "image_ap": 0.965, "pixel_auroc": 0.851, "aupro": 0.646}, SOURCE, PROTOCOL),
    Row("visa", {"image_auroc": 0.781, "pixel_auroc": 0.796, "aupro": 0.568}, SOURCE, PROTOCOL),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("winclip", wanted.dataset)
    config.protocol.name = "zero_shot"
    config.data.update({"resize": 240, "crop": 240, "interpolation": "bicubic"})
    config.backbone.name = "clip_vitb16plus_240"
    config.networks.text.name = "clip_vitb16plus_240_text"
    config.threshold.holdout = 0.0
    if wanted.quick:
        quick(config)
        config.backbone.update({"name": "clip_vitb32", "weights": "random"})
        config.networks.text.update({"name": "clip_vitb32_text", "weights": "random"})
    return finish(config, wanted)
