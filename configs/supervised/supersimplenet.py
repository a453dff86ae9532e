"""SuperSimpleNet (Rolih et al., ICPR 2024) with labelled anomalies.

    python scripts/train.py --config=configs/supervised/supersimplenet.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/supervised/supersimplenet.py:kolektor_sdd2 --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/supersimplenet.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/supervised/supersimplenet.py:folder --config.data.root=DIR

Published for kolektor_sdd2, with all 246 labelled anomalies: PUBLISHED below. The authors draw every anomaly four times in a
pass, mirrored, and as many normal images, those more often that were drawn less often. Here half of each batch is anomalous
and mirrored at random.

No training images are held out for kolektor_sdd2, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py, has the form without labels.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

PUBLISHED = [
    Row(
        "kolektor_sdd2",
        {"image_ap": 0.974, "image_auroc": 0.995, "pixel_ap": 0.821},
        "github.com/blaz-r/SuperSimpleNet, paper_results/results_avg_std.json",
        {
            "protocol.name": "supervised",
            "protocol.num_anomalies": 246,
            "data.resize": (640, 232),
            "data.crop": 0,
            "data.batch_size": 32,
            "backbone.name": "wide_resnet50_2",
            "detector.steps": 18600,
            "detector.perlin_threshold": 0.6,
            "threshold.holdout": 0.0,
        },
        "mean over five runs, last epoch",
    )
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("supersimplenet", wanted.dataset)
    config.protocol.update({"name": "supervised", "num_anomalies": 10})
    config.data.update({"resize": 256, "batch_size": 32})
    config.backbone.name = "wide_resnet50_2"
    # 300 passes of 62 batches on kolektor_sdd2
    config.detector.update({"anomaly_fraction": 0.5, "flip": True, "stop_gradient": False, "clip_norm": 1.0, "steps": 18600})
    config.detector.perlin_threshold = 0.6
    if wanted.dataset == "kolektor_sdd2":
        config.protocol.num_anomalies = 246
        config.data.resize = (640, 232)
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"layers": ("layer2",), "hidden": 128, "width": 32, "noise_std": 0.1, "steps": 150}
        quick(config, small | {"adaptor_rate": 1e-3, "learning_rate": 1e-3}, batch_size=8)
    return finish(config, wanted)
