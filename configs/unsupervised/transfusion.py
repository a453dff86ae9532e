"""TransFusion (Fučka et al., ECCV 2024), one model per category; no pretrained weights.

    python scripts/train.py --config=configs/unsupervised/transfusion.py:synthetic,category=wood,quick
    python scripts/train.py --config=configs/unsupervised/transfusion.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/transfusion.py:folder --config.data.root=DIR

Published for mvtec_ad and visa: PUBLISHED below, from the authors' page (github.com/MaticFuc/ECCV_TransFusion, MIT). The rows
need DTD: give it with --config.detector.textures=DIR; without it textures are drawn. The authors draw anomalies within masks of
the foreground that they publish; here anywhere, or within Otsu's dark or bright part of the image (detector.foreground). The
weights on that page load with iadjax.from_torch("transfusion", tensors, state), saved as safetensors before.

No training images are held out for these, as in the published protocol, so no threshold is fitted there: add
--config.threshold.holdout=0.1 for one.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import Row, base_config, finish, parse_arg, quick

_PROTOCOL = {
    "data.resize": 256,
    "data.crop": 0,
    "data.batch_size": 8,
    "detector.width": 64,
    "detector.epochs": 1500,
    "detector.learning_rate": 1e-5,
    "threshold.holdout": 0.0,
}
_NOTE = "last epoch; textures of DTD, within masks of the foreground"
_SOURCE = "github.com/MaticFuc/ECCV_TransFusion, README"

PUBLISHED = [
    Row("mvtec_ad", {"image_auroc": 0.994, "aupro": 0.953}, _SOURCE, _PROTOCOL, _NOTE),
    Row("visa", {"image_auroc": 0.987, "aupro": 0.947}, _SOURCE, _PROTOCOL, _NOTE),
]


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("transfusion", wanted.dataset)
    config.data.update({"resize": 256, "batch_size": 8})
    if wanted.dataset in ("mvtec_ad", "visa"):
        # the authors hold out no training images
        config.threshold.holdout = 0.0
    if wanted.quick:
        small = {"width": 16, "multipliers": (1, 2, 2), "attended": 1, "blocks": 1, "steps": 6}
        small |= {"window": 3, "learning_rate": 2e-3}
        # one category has few images
        quick(config, small | {"epochs": 40 if wanted.category else 4}, resize=64, batch_size=8)
    return finish(config, wanted)
