"""SubspaceAD (Lendering et al., CVPR 2026) without training images: its subspace is that of the unlabelled test images.

    python scripts/train.py --config=configs/zero_shot/subspacead.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/zero_shot/subspacead.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/zero_shot/subspacead.py:visa,category=pcb1 --config.data.root=DIR

Reference: github.com/CLendering/SubspaceAD (Apache-2.0). Published for mvtec_ad and visa ("batched zero-shot"): PUBLISHED
below. The settings are those of few_shot/subspacead.py without rotations. No image is left out of the subspace that scores it.

Measured here: nothing yet on real images.
"""

from iadjax.config import Row, finish, load_config, parse_arg

PROTOCOL = {
    "data.resize": 672,
    "data.interpolation": "bicubic",
    "backbone.name": "dinov2_vitg14_reg",
    "detector.layers": tuple(f"block{i}" for i in range(23, 30)),
    "detector.rotations": 0,
    "detector.variance": 0.99,
    "detector.kernel_size": 3,
    "protocol.name": "zero_shot",
    "protocol.test_batch": True,
    "threshold.holdout": 0.0,
}
SOURCE = "github.com/CLendering/SubspaceAD, README, batched zero-shot (arXiv 2602.23013)"

PUBLISHED = [
    Row("mvtec_ad", {"image_auroc": 0.966}, SOURCE, PROTOCOL),
    Row("visa", {"image_auroc": 0.941}, SOURCE, PROTOCOL),
]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of few_shot/subspacead.py."""
    wanted = parse_arg(arg)
    config = load_config(f"few_shot/subspacead.py:{arg}")
    config.protocol.update({"name": "zero_shot", "test_batch": True})
    config.detector.rotations = 0
    return finish(config, wanted)
