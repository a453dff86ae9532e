"""PatchCore (Roth et al., CVPR 2022), one model per category.

    python scripts/train.py --config=configs/unsupervised/patchcore.py:synthetic
    python scripts/train.py --config=configs/unsupervised/patchcore.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchcore.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchcore.py:mvtec_ad_2,category=can --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchcore.py:visa,network=dinov2_vitb14 --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/patchcore.py:folder --config.data.root=DIR

Published for mvtec_ad: PUBLISHED below, of the authors' repository (torchvision's V1 weights). The authors smooth squared
distances, which moves pixel AUROC by about 0.0001.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

`network` takes a vision transformer of docs/backbones.md instead: its normalised patch tokens, of images of 448 x 448, without
averaging over neighbours. No row is quoted for that.

Nothing is quoted for mvtec_ad_2, whose protocol is that of docs/data.md: full-size images in tiles, the threshold from normal
images alone.

Measured here (two CPU cores, JAX 0.10.2; docs/results.md has the commands): MTD, ResNet-18 V1 weights, 1 % coreset: image AUROC
0.961, pixel AUROC 0.791, AU-PRO 0.728, 90 s to fit; MTD-300 likewise 0.891, 0.812, 0.745 (mean of three seeds).
"""

from iadjax.config import Row, ad2, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.992, "pixel_auroc": 0.981, "aupro": 0.944},
        "github.com/amazon-science/patchcore-inspection, table of the README (arXiv 2106.08265)",
        {
            "data.resize": 256,
            "data.crop": 224,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer2", "layer3"),
            "detector.embedding": "unfold",
            "detector.patch_size": 3,
            "detector.pretrain_dimension": 1024,
            "detector.target_dimension": 1024,
            "detector.coreset_ratio": 0.1,
            "detector.reweight": False,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,network=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg, network="")
    config = base_config("patchcore", wanted.dataset)
    if wanted.dataset == "synthetic":
        config.detector.coreset_ratio = 0.05
    else:
        config.backbone.name = "wide_resnet50_2"
    if wanted.dataset == "mvtec_ad":
        # the protocol of the published row
        config.data.update({"resize": 256, "crop": 224})
        config.detector.update({"embedding": "unfold", "pretrain_dimension": 1024, "target_dimension": 1024})
        config.detector.update({"coreset_ratio": 0.1, "reweight": False})
        config.threshold.holdout = 0.0
    if wanted.dataset in ("mtd", "mtd_300"):
        config.backbone.name = "resnet18"
        config.detector.coreset_ratio = 0.01
    if wanted.dataset.startswith("mvtec_ad_2"):
        ad2(config, tile=512)
        config.data.batch_size = 4
        config.detector.coreset_ratio = 0.01
    if wanted.options["network"]:
        # 448 is a multiple of every patch
        config.data.update({"resize": 448, "crop": 0, "interpolation": "bicubic", "batch_size": 4})
        config.backbone.name = wanted.options["network"]
        config.detector.update({"layers": ("norm",), "embedding": "pool", "patch_size": 1})
    if wanted.quick:
        quick(config, {"embedding": "pool", "coreset_ratio": 0.05, "layers": ("layer2", "layer3"), "patch_size": 3})
    return finish(config, wanted)
