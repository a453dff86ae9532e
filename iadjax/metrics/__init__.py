"""Exact metrics of anomaly detection; pure functions that never transform scores."""

from iadjax.metrics.ranking import Curve, auroc, average_precision, f1_max, pr_curve, precision_recall_f1, roc_curve
from iadjax.metrics.regions import aupro, pro_curve
from iadjax.metrics.tables import image_metrics, pixel_metrics
from iadjax.metrics.thresholds import fit_threshold, threshold_report

__all__ = [
    "Curve",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "fit_threshold",
    "image_metrics",
    "pixel_metrics",
    "pr_curve",
    "precision_recall_f1",
    "pro_curve",
    "roc_curve",
    "threshold_report",
]
