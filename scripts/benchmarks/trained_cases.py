"""How long each detector may train in `trained.py`, on the networks of `detector_runs.py`."""

from typing import Any

from detector_runs import overrides

__all__ = ["PLATEAU", "SCHEDULES", "SETS", "settings"]

SETS = ("hazelnut_toy", "mtd_300", "mtd")
PLATEAU = 0.2

# published schedules where they end on a CPU, else more steps than the loss needs
SCHEDULES: dict[str, dict[str, Any]] = {
    # autoencoders
    "ae": {"detector.steps": 20000, "detector.learning_rate": 2e-4},
    "dfr": {"detector.epochs": 700, "detector.learning_rate": 1e-4},
    "draem": {"detector.epochs": 700, "detector.learning_rate": 1e-3},
    # GANs
    "ganomaly": {"detector.epochs": 1000},
    # transformers
    "intra": {"detector.epochs": 2000, "detector.learning_rate": 1e-4},
    "uniad": {"detector.epochs": 1000},
    # diffusion
    "ddad": {"detector.epochs": 3000, "detector.learning_rate": 3e-4},
    "inversionad": {"detector.epochs": 300, "detector.warmup_epochs": 30},
    # students
    "efficientad": {"detector.steps": 70000, "detector.learning_rate": 1e-4},
    "stpm": {"detector.epochs": 100},
    # flows and discriminators of features
    "fastflow": {"detector.epochs": 500},
    "simplenet": {"detector.epochs": 160},
}


def settings(name: str, dataset: str) -> dict[str, Any]:
    """What the run of a detector on a data set changes in its config; `mtd` takes what `mtd_300` has."""
    changed = overrides(name, "mtd_300" if dataset == "mtd" else dataset) | SCHEDULES[name]
    return changed | {"plateau": PLATEAU, "checkpoint_every": 100}
