"""MH-PatchCore (Ferrari et al., 2026), one model per category.

    python scripts/train.py --config=configs/unsupervised/mh_patchcore.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/mh_patchcore.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/mh_patchcore.py:folder --config.data.root=DIR

Reference: github.com/NickF93/MH-PatchCore (MIT) and anomalib 2.7.0 (Apache-2.0), whose form and defaults these are. Published
for mvtec_ad: PUBLISHED below, of the paper, with torchvision's V2 weights (timm's `wide_resnet50_2.tv2_in1k`).

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py; the time of a fit beside that of the same passes in
PyTorch: results/mh_patchcore_cpu.json, made by scripts/benchmarks/mh_patchcore.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

WEIGHTS = "timm/wide_resnet50_2.tv2_in1k"

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.989, "pixel_auroc": 0.978},
        "arXiv 2605.27748, MVTec AD",
        {
            "data.resize": 256,
            "data.crop": 224,
            "backbone.name": "wide_resnet50_2",
            "backbone.weights": WEIGHTS,
            "detector.layers": ("layer2", "layer3"),
            "detector.patch_size": 3,
            "detector.pretrain_dimension": 1024,
            "detector.target_dimension": 1024,
            "detector.variance": 0.99,
            "detector.shrinkage": 0.07,
            "detector.bank_size": 1000,
            "detector.local_size": 256,
            "detector.num_neighbors": 9,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("mh_patchcore", wanted.dataset)
    config.backbone.update({"name": "wide_resnet50_2", "weights": WEIGHTS})
    config.data.update({"resize": 256, "crop": 224, "batch_size": 32})
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.quick:
        quick(config, {"pretrain_dimension": 64, "target_dimension": 64, "block_images": 8}, batch_size=8)
    return finish(config, wanted)
