"""AnomalyCLIP (Zhou et al., ICLR 2024): prompts learned on one data set, tested on another.

    python scripts/train.py --config=configs/zero_shot/anomalyclip.py:mvtec_ad,protocol.source_root=VISA --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/anomalyclip.py:visa,protocol.source_root=MVTEC --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/anomalyclip.py:folder,protocol.source_root=MVTEC --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/anomalyclip.py:synthetic,category=washer,quick

Published for mvtec_ad and visa: PUBLISHED below. The protocol: CLIP ViT-L/14 of 336 px at 518 x 518 (bicubic), positions
resized bilinearly. The prompts are trained on the labelled test images of VisA for mvtec_ad, and of MVTec AD for visa and
everything else (`protocol.source`): 15 epochs, batches of 8, Adam. No images are held out. The authors resize masks bilinearly
and cut at .5.

Reference: github.com/zqhang/AnomalyCLIP (MIT). Their checkpoints load by `iadjax.from_torch` after a conversion to safetensors.
`quick` has random weights and synthetic images of another product: it shows that the parts run, not what CLIP finds.

Measured here: not yet, because it needs CLIP's weights.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 518,
    "data.crop": 0,
    "data.interpolation": "bicubic",
    "data.batch_size": 8,
    "backbone.name": "clip_vitl14_336_bilinear",
    "networks.text.name": "clip_vitl14_336_text",
    "detector.blocks": (24,),
    "detector.epochs": 15,
    "protocol.name": "zero_shot",
    "threshold.holdout": 0.0,
}
SOURCE = "arXiv 2310.18961, tables of zero-shot results"


def _row(dataset, source, **figures):
    protocol = {**PROTOCOL, "protocol.source": source}
    return Row(dataset, figures, SOURCE, protocol, f"trained on the test images of {source}")


PUBLISHED = [
    _row("mvtec_ad", "visa", image_auroc=0.915, image_ap=0.962, pixel_auroc=0.911, aupro=0.814),
    _row("visa", "mvtec_ad", image_auroc=0.821, pixel_auroc=0.955, aupro=0.870),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("anomalyclip", wanted.dataset)
    source = "visa" if wanted.dataset == "mvtec_ad" else "mvtec_ad"
    config.protocol.update({"name": "zero_shot", "source": source})
    config.data.update({"resize": 518, "interpolation": "bicubic", "batch_size": 8})
    config.backbone.name = "clip_vitl14_336_bilinear"
    config.networks.text.name = "clip_vitl14_336_text"
    config.threshold.holdout = 0.0
    if wanted.quick:
        quick(config, {"blocks": (12,), "epochs": 1})
        config.protocol.update({"source": "synthetic:wood", "source_root": ""})
        config.backbone.update({"name": "clip_vitb32", "weights": "random"})
        config.networks.text.update({"name": "clip_vitb32_text", "weights": "random"})
    return finish(config, wanted)
