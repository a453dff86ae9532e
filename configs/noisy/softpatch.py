"""SoftPatch (Jiang et al., NeurIPS 2022) with anomalies among its training images, which pass for normal.

    python scripts/train.py --config=configs/noisy/softpatch.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/noisy/softpatch.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/noisy/softpatch.py:folder --config.data.root=DIR

Published for mvtec_ad at a ratio of 0.1: PUBLISHED below. Reference:
github.com/TencentYoutuResearch/AnomalyDetection-SoftPatch (the README says Apache-2.0). The authors' command line has
`--lof_k 6`, which is lost on the way, so these figures are of 5 neighbours; the detector's default is the paper's 6. Their code
moves BatchNorm's running statistics by a tenth before it begins, by an image of ones; here they are the weights' own.

No training images are held out for mvtec_ad, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, finish, load_config, parse_arg

PUBLISHED = [
    Row(
        "mvtec_ad",
        {"image_auroc": 0.9865, "pixel_auroc": 0.9805},
        "github.com/TencentYoutuResearch/AnomalyDetection-SoftPatch, table of the README (arXiv 2403.14233)",
        {
            "protocol.name": "noisy",
            "protocol.noise_ratio": 0.1,
            "protocol.keep_in_test": False,
            "data.resize": 256,
            "data.crop": 224,
            "backbone.name": "wide_resnet50_2",
            "detector.layers": ("layer2", "layer3"),
            "detector.embedding": "unfold",
            "detector.pretrain_dimension": 1024,
            "detector.target_dimension": 1024,
            "detector.discriminator": "lof",
            "detector.lof_neighbors": 5,
            "detector.removed_fraction": 0.15,
            "detector.coreset_ratio": 0.1,
            "threshold.holdout": 0.0,
        },
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: as that of unsupervised/softpatch.py."""
    wanted = parse_arg(arg)
    config = load_config(f"unsupervised/softpatch.py:{arg}")
    config.protocol.update({"name": "noisy", "noise_ratio": 0.1})
    return finish(config, wanted)
