"""US (Bergmann et al., CVPR 2020), one model per category.

    python scripts/train.py --config=configs/unsupervised/us.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/us.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/us.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/us.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, with teachers of ImageNet's crops
(--config.detector.teacher_images=FOLDER), from a summary of the paper. There is no code of the
authors. The scale of the map is that of held-out normal images, so the detector needs some.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 1,
    "backbone.name": "resnet18",
    "detector.num_students": 3,
    "detector.dimension": 128,
    "detector.teacher_steps": 50000,
    "detector.epochs": 100,
    "threshold.holdout": 0.1,
}
SOURCE = "arXiv 1911.02357, table of PRO scores, from a summary of the paper"
NOTE = "teachers are trained on ImageNet"
PUBLISHED = [
    Row("mvtec_ad", {"aupro": 0.914}, SOURCE, PROTOCOL | {"detector.patch_sizes": (17, 33, 65)}, NOTE),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("us", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 1})
    config.backbone.name = "resnet18"
    if wanted.quick:
        small = {"layer": "layer3", "patch_sizes": (17,), "num_students": 2, "width": 8, "dimension": 16, "target_size": 64}
        teacher = {"teacher_steps": 100, "crops": 16, "compactness_weight": 0.1, "teacher_learning_rate": 2e-3}
        students = {"epochs": 12, "learning_rate": 2e-3}
        quick(config, small | teacher | students, batch_size=4)
    return finish(config, wanted)
