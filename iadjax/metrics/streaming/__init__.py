"""Pixel metrics over a stream of maps, with error bounds that are computed from the data.

state = streaming.init()
for maps, masks in batches:
    state = streaming.update(state, maps, masks)
metrics, error_bounds = streaming.compute(state)
"""

from iadjax.metrics.streaming.bounds import Bounded
from iadjax.metrics.streaming.loco import accumulate_spro, au_spro, init_spro, update_spro
from iadjax.metrics.streaming.pixel import (
    AtThreshold,
    Streamed,
    accumulate,
    aupimo,
    aupro,
    component_areas,
    compute,
    dice,
    init,
    iou_max,
    precision_recall_f1,
    update,
)
from iadjax.metrics.streaming.state import State, merge, refine

__all__ = [
    "AtThreshold", "Bounded", "State", "Streamed", "accumulate", "accumulate_spro", "au_spro", "aupimo", "aupro",
    "component_areas", "compute", "dice", "init", "init_spro", "iou_max", "merge", "precision_recall_f1", "refine", "update",
    "update_spro",
]  # fmt: skip
