"""Metrics of industrial anomaly detection: exact, host or device, documented with definition, formula and source."""

from iadjax.metrics.binary import (
    PrecisionRecallF1,
    PRCurve,
    ROCCurve,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pr_curve,
    precision_recall_f1,
    roc_curve,
)
from iadjax.metrics.pixel import PROCurve, aupro, dice, iou_max, pixel_metrics, pro_curve
from iadjax.metrics.thresholds import fit_threshold, threshold_report

__all__ = [
    "PRCurve", "PROCurve", "PrecisionRecallF1", "ROCCurve", "aupro", "auroc", "average_precision", "dice", "f1_max",
    "fit_threshold", "image_metrics", "iou_max", "pixel_metrics", "pr_curve", "precision_recall_f1", "pro_curve",
    "roc_curve", "threshold_report",
]  # fmt: skip
