"""SuperADD (Room et al., VAND 4.0 at CVPR 2026), one model per category.

    python scripts/train.py --config=configs/unsupervised/superadd.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/superadd.py:mvtec_ad_2,category=can --config.backbone.weights=FILE
    python scripts/train.py --config=configs/unsupervised/superadd.py:mvtec_ad,category=bottle --config.backbone.weights=FILE

References: github.com/LukasRoom/SuperADD (CC BY-NC 4.0: written from facts alone) and anomalib 2.7.0 (Apache-2.0). Nothing is
quoted of what they published: their figures of MVTec AD 2 rest on masks with a threshold and morphology of their own. The
settings are the authors': DINOv3 ViT-H+/16, whose weights you bring, and tiles of 640 pixels; mvtec_ad_2 keeps its full size,
which they scale by 0.625. anomalib has
--config.detector.tile=448 --config.detector.overlap=16 --config.detector.brightness=0.0.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import ad2, base_config, finish, parse_arg, quick

PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("superadd", wanted.dataset)
    config.backbone.name = "dinov3_vith16plus"
    config.data.update({"resize": 896, "batch_size": 1})
    if wanted.dataset.startswith("mvtec_ad_2"):
        ad2(config, tile=640)
        # the detector has tiles of its own
        config.data.update({"tile": 0, "crop_multiple": 16})
    if wanted.quick:
        quick(
            config, {"layers": ("layer1", "layer2"), "tile": 64, "overlap": 16, "bank_size": 5000, "subsets": 10}, batch_size=8
        )
    return finish(config, wanted)
