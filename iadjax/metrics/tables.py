"""The metrics that stand in `metrics.json`, from one sort each."""

import warnings

from iadjax.metrics.ranking import auroc_of, average_precision_of, f1_max_of, rank_of, ranks
from iadjax.metrics.regions import area_under, split_pixels

__all__ = ["image_metrics", "pixel_metrics"]

_LIMITS = {"aupro": 0.3, "aupro_05": 0.05, "aupro_01": 0.01}


def image_metrics(scores, labels) -> dict[str, float]:
    """{"image_auroc", "image_ap", "image_f1max"} of one score per image; NaN, with a warning, where a class is absent."""
    return {f"image_{key}": value for key, value in _ranking(ranks(scores, labels), "image").items()}


def pixel_metrics(maps, masks) -> dict[str, float]:
    """{"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05", "aupro_01"} over all pixels of all images.

    Args:
      maps: `[N, H, W]`, or a list of `[H, W]` of any sizes.
      masks: the same shapes; nonzero is defective.

    Returns:
      The metrics, AU-PRO to the FPR limits .3, .05 and .01; NaN, with a warning, where a class is absent.
    """
    positives, negatives, weights, count = split_pixels(maps, masks)
    found = rank_of(positives, negatives)
    table = {f"pixel_{key}": value for key, value in _ranking(found, "pixel").items()}
    defined = len(positives) and len(negatives)
    for key, limit in _LIMITS.items():
        table[key] = area_under(found, weights, count, limit) if defined else float("nan")
    return table


def _ranking(found, what: str) -> dict[str, float]:
    if len(found.positives) and found.num_negatives:
        return {"auroc": auroc_of(found), "ap": average_precision_of(found), "f1max": f1_max_of(found)[0]}
    missing = "anomalous" if found.num_negatives else "normal"
    warnings.warn(f"the {what} metrics are undefined: nothing is {missing}", UserWarning, stacklevel=3)
    return dict.fromkeys(("auroc", "ap", "f1max"), float("nan"))
