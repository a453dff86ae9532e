"""ReConPatch (Hyun et al., WACV 2024), one model per category.

    python scripts/train.py --config=configs/unsupervised/reconpatch.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/reconpatch.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/reconpatch.py:folder --config.data.root=DIR

The authors published no code. What the paper leaves open is as in PatchCore and, for the contextual similarity, as in
github.com/HIRO-ops-ops/ReConPatch (no licence; nothing is taken from it). Published for mvtec_ad: PUBLISHED below, of a single
Wide ResNet-50-2. A batch is one image, whose patches are compared with each other.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.9956},
        "arXiv 2305.16713, table of single models",
        {
            "data.resize": 256,
            "data.crop": 224,
            "data.batch_size": 1,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer2", "layer3"),
            "detector.dimension": 512,
            "detector.epochs": 120,
            "detector.learning_rate": 1e-5,
            "detector.weight_decay": 1e-2,
            "detector.coreset_ratio": 0.01,
            "threshold.holdout": 0.0,
        },
        "no code of the authors: the pooling of patches and b of eq. 7 are not stated",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("reconpatch", wanted.dataset)
    config.data.update({"resize": 256, "crop": 224, "batch_size": 1})
    config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        config.threshold.holdout = 0.0
    if wanted.dataset == "synthetic":
        config.detector.coreset_ratio = 0.05
    if wanted.quick:
        # one category has few images
        options = {"epochs": 3 if wanted.category else 1, "dimension": 64, "projection_dimension": 32, "learning_rate": 1e-3}
        quick(config, {**options, "coreset_ratio": 0.05}, batch_size=4)
    return finish(config, wanted)
