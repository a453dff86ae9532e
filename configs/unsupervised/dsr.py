"""DSR (Zavrtanik et al., ECCV 2022), one model per category; the codebook is trained first, without pretrained weights.

    python scripts/train.py --config=configs/unsupervised/dsr.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/dsr.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dsr.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/dsr.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below. The row needs a discrete autoencoder that ImageNet has trained: give its images with
--config.detector.codebook_images=DIR; without it textures are drawn. The authors count 8,000 images as an epoch, of which they
take 100 in batches of 8: 100,000 steps, and half as many for the upsampling module. They read images in the order BGR, shrink
them without antialiasing, and count the pixels of the central 224 x 224 alone. The licence of their code,
github.com/VitjanZ/DSR_anomaly_detection, is Apache-2.0; nothing of it is here.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.982, "pixel_ap": 0.702},
        "arXiv 2208.01521",
        {
            "data.resize": 256,
            "data.crop": 0,
            "data.batch_size": 8,
            "detector.codes": 4096,
            "detector.dimension": 128,
            "detector.restore_steps": 100_000,
            "detector.refine_steps": 50_000,
            "detector.learning_rate": 2e-4,
            "threshold.holdout": 0.0,
        },
        "discrete autoencoder of ImageNet (detector.codebook_images=DIR); pixels of the central 224 x 224",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("dsr", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.dataset == "mvtec_ad":
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {
            "codes": 128,
            "dimension": 16,
            "width": 16,
            "hidden": 8,
            "inner": 16,
            "segment_width": 8,
            "codebook_steps": 400,
            "codebook_rate": 2e-3,
            "restore_steps": 300,
            "refine_steps": 150,
            "anomaly_prob": 0.8,
            "rotate_prob": 0.0,
            "learning_rate": 2e-3,
            "pool_size": 5,
        }
        quick(config, small, resize=64, batch_size=8)
    return finish(config, wanted)
