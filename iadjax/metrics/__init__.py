"""Exact metrics of anomaly detection; pure functions that never transform scores."""

from iadjax.data.defects import Defect, Saturation, loco_defects, read_defects_config
from iadjax.metrics import streaming
from iadjax.metrics.binary import (
    PRCurve,
    PrecisionRecallF1,
    ROCCurve,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pr_curve,
    precision_recall_f1,
    roc_curve,
)
from iadjax.metrics.continual import Forgetting, MeanStd, average_accuracy, forgetting, mean_std
from iadjax.metrics.decisions import seg_and_class_f1
from iadjax.metrics.files import evaluate_files
from iadjax.metrics.loco import au_spro, loco_au_spro, loco_image_auroc, spro
from iadjax.metrics.pimo import PIMOCurve, aupimo, pimo
from iadjax.metrics.pixel import PROCurve, aupro, dice, iou_max, pixel_metrics, pro_curve
from iadjax.metrics.thresholds import check_threshold, fit_threshold, threshold_options, threshold_report

__all__ = [
    "Defect", "Forgetting", "MeanStd", "PIMOCurve", "PRCurve", "PROCurve", "PrecisionRecallF1", "ROCCurve", "Saturation",
    "au_spro", "aupimo", "aupro", "auroc", "average_accuracy", "average_precision", "check_threshold", "dice",
    "evaluate_files", "f1_max", "fit_threshold", "forgetting", "image_metrics", "iou_max", "loco_au_spro", "loco_defects",
    "loco_image_auroc", "mean_std", "pimo", "pixel_metrics", "pr_curve", "precision_recall_f1", "pro_curve",
    "read_defects_config", "roc_curve", "seg_and_class_f1", "spro", "streaming", "threshold_options", "threshold_report",
]  # fmt: skip
