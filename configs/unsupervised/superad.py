"""SuperAD (Zhang et al., VAND 3.0 at CVPR 2025), one model per category.

    python scripts/train.py --config=configs/unsupervised/superad.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/superad.py:mvtec_ad_2,category=can --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/superad.py:mvtec_ad,category=bottle --config.data.root=DIR

Written from the paper's facts; the authors' code has no known licence. Nothing is quoted of what they published: their masks of
MVTec AD 2 rest on thresholds that the labels of its public test images gave. References are 16 images, as in the paper; the
code keeps a tenth: --config.detector.num_references=0. The layers are not stated.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import ad2, base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("superad", wanted.dataset)
    config.backbone.name = "dinov2_vitl14"
    config.data.update({"resize": 448, "interpolation": "bicubic", "batch_size": 4})
    if wanted.dataset.startswith("mvtec_ad_2"):
        ad2(config, tile=448)
    if wanted.quick:
        quick(config, {"layers": ("layer1", "layer2"), "class_layer": "layer3"}, batch_size=8)
    return finish(config, wanted)
