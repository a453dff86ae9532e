"""WinCLIP (Jeong et al., CVPR 2023) with a few normal images ("WinCLIP+").

    python scripts/train.py --config=configs/few_shot/winclip.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/winclip.py:mvtec_ad,protocol.num_shots=4 --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/winclip.py:visa,category=pcb1 --config.data.root=DIR
    python scripts/train.py --config=configs/few_shot/winclip.py:synthetic,category=washer,quick

Published for mvtec_ad and visa: PUBLISHED below, means over five draws of the shots; which those were is not published. The
rest of the protocol is that of zero_shot/winclip.py. No images are held out, so no threshold is fitted: add
--config.threshold.holdout=0.1 for one. `quick` has random weights.

Measured here: not yet, because it needs CLIP's weights.
"""

from iadjax.config import Row, finish, load_config, parse_arg


def _row(dataset, shots, image_auroc, pixel_auroc, aupro):
    protocol = {
        "data.resize": 240,
        "data.crop": 240,
        "data.interpolation": "bicubic",
        "backbone.name": "clip_vitb16plus_240",
        "networks.text.name": "clip_vitb16plus_240_text",
        "detector.windows": (2, 3),
        "protocol.name": "few_shot",
        "protocol.num_shots": shots,
        "threshold.holdout": 0.0,
    }
    figures = {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc, "aupro": aupro}
    source = "arXiv 2303.14814, tables of few-shot results"
    return Row(dataset, figures, source, protocol, "mean of five draws of the shots", f"{dataset},protocol.num_shots={shots}")


PUBLISHED = [
    _row("mvtec_ad", 1, 0.931, 0.952, 0.871),
    _row("mvtec_ad", 4, 0.952, 0.962, 0.890),
    _row("visa", 1, 0.838, 0.964, 0.851),
    _row("visa", 4, 0.873, 0.972, 0.876),
]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of zero_shot/winclip.py."""
    wanted = parse_arg(arg)
    config = load_config(f"zero_shot/winclip.py:{arg}")
    config.protocol.update({"name": "few_shot", "num_shots": 4 if wanted.quick else 1})
    return finish(config, wanted)
