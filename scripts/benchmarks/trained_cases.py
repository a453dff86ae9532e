"""How long each detector may train in `trained.py`, and what else differs from `detector_runs.py`."""

from typing import Any

from detector_runs import overrides

__all__ = ["PLATEAU", "SCHEDULES", "SETS", "settings"]

SETS = ("hazelnut_toy", "mtd_300", "mtd")
PLATEAU = 0.2

# published schedules, or more steps than the loss needs, and published networks where the benchmark's are smaller
SCHEDULES: dict[str, dict[str, Any]] = {
    # autoencoders
    "ae": {"detector.steps": 20000, "detector.learning_rate": 2e-4},
    "dfr": {"detector.epochs": 700, "detector.learning_rate": 1e-4},
    "draem": {
        "detector.epochs": 700,
        "detector.learning_rate": 1e-4,
        "detector.width": 128,
        "detector.segment_width": 64,
    },
    # GANs
    "ganomaly": {"detector.epochs": 1000},
    # transformers
    "intra": {
        "detector.epochs": 2000,
        "detector.learning_rate": 1e-4,
        "detector.length": 7,
        "detector.d": 512,
        "detector.blocks": 13,
        "data.resize": 256,
    },
    "uniad": {"detector.epochs": 1000, "detector.learning_rate": 1e-4},
    # diffusion
    "ddad": {"detector.epochs": 3000, "detector.learning_rate": 3e-4},
    "inversionad": {"detector.epochs": 300, "detector.warmup_epochs": 30},
    # students
    "efficientad": {"detector.steps": 70000, "detector.learning_rate": 1e-4, "data.resize": 256},
    "stpm": {"detector.epochs": 100},
    # flows and discriminators of features
    "fastflow": {"detector.epochs": 500},
    "simplenet": {"detector.epochs": 160},
}


def settings(name: str, dataset: str) -> dict[str, Any]:
    """What the run of a detector on a data set changes in its config; `mtd` takes what `mtd_300` has."""
    changed = overrides(name, "mtd_300" if dataset == "mtd" else dataset) | SCHEDULES[name]
    return changed | {"plateau": PLATEAU}
