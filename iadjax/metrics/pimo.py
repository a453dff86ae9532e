"""Per-image overlap over a shared false positive rate: PIMO and AUPIMO (Bertoldo et al. 2024, AUPIMO, arXiv 2401.01984)."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.inputs import all_on_accelerator, as_binary, as_pairs, as_scores, device_scores, undefined
from iadjax.metrics.overlap import log_ramp_area, namespace, polyline, real, total

__all__ = ["PIMOCurve", "aupimo", "check_bounds", "image_area", "pimo", "shared_fpr", "warn_unresolved"]


class PIMOCurve(NamedTuple):
    """The curve of one anomalous image, by its vertices in order of increasing false positive rate.

    Attributes:
      image: its index among the images.
      fpr: `[M]` float64 (JAX's default float on an accelerator), the shared false positive rate.
      tpr: `[M]` likewise, fraction of the image's marked pixels that are found.
    """

    image: int
    fpr: Any
    tpr: Any


def pimo(maps: Any, masks: Any) -> list[PIMOCurve]:
    """Per-image overlap curves; exact, no binning.

    TPR_i(t) = fraction of the marked pixels of the anomalous image i with score >= t.
    FPR(t) = fraction of the pixels with score >= t, averaged over the normal images, whose mask is empty.
    Straight lines in FPR join the vertices.

    Args:
      maps: `[N, H, W]`, or a list of `[H, W]` arrays whose sizes may differ; NumPy or JAX. Normal pixels on an accelerator are
        sorted there, and the curves are JAX arrays.
      masks: as `maps`; bool, {0, 1} or {0, 255}.

    Returns:
      One curve per anomalous image, in order.

    Raises:
      UserError: there is no normal image, shapes differ, masks are not binary, or maps hold NaN or infinities (counted).
    """
    maps, masks = _images(maps, masks)
    values, above = _normal(maps, masks)
    curves = []
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            xp = namespace(each)
            scores = xp.sort(each.ravel()[np.flatnonzero(mask)])[::-1]
            # tied pixels are one step
            last = xp.concatenate([scores[1:] != scores[:-1], xp.ones(1, bool)])
            before, at = shared_fpr(scores[last], values, above)
            curves.append(PIMOCurve(i, *polyline(before, at, real(xp.arange(1, scores.size + 1)[last]) / scores.size)))
    return curves


def aupimo(maps: Any, masks: Any, fpr_bounds: tuple[float, float] = (1e-5, 1e-4)) -> np.ndarray:
    """Area under each PIMO curve over the logarithm of the shared false positive rate F, between two bounds L and U.

    AUPIMO_i = (1 / log(U / L)) * integral from L to U of TPR_i d log F; in [0, 1]. Each straight piece of the curve is
    integrated in closed form; there is no grid of thresholds.

    Args:
      maps, masks: as in `pimo`; on an accelerator everything but the areas stays there.
      fpr_bounds: (L, U), 0 < L < U <= 1.

    Returns:
      `[N]` float64: one area per anomalous image, NaN for normal images (`numpy.nanmean` gives the data set's figure). All NaN,
      with one warning, when there is no anomalous image. One warning when L is less than one pixel of the normal images.

    Raises:
      UserError: as `pimo`, or the bounds are out of order.
    """
    check_bounds(fpr_bounds)
    maps, masks = _images(maps, masks)
    values, above = _normal(maps, masks)
    warn_unresolved(sum(mask.size for mask in masks if not mask.any()), fpr_bounds[0])
    found = np.full(len(maps), np.nan if any(mask.any() for mask in masks) else undefined("AUPIMO needs an anomalous image"))
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            if isinstance(each, jax.Array):
                # all pixels, most of them of weight 0: one shape for every image
                weights = real(jnp.asarray(mask.ravel())) / int(mask.sum())
                found[i] = float(_jitted_area(each.ravel(), weights, values, above, *fpr_bounds))
            else:
                found[i] = image_area(each[mask], 1 / mask.sum(), values, above, *fpr_bounds)
    return found


def image_area(scores: Any, weights: Any, values: Any, above: Any, lower: float, upper: float) -> Any:
    """AUPIMO of one image; NumPy, or jax.numpy under `jax.jit`.

    Args:
      scores: `[n]` floats, the pixels.
      weights: `[n]` or a number: 1 / the number of marked pixels, 0 where a pixel is not marked.
      values, above: from the normal images, as `shared_fpr` takes them.
      lower, upper: bounds of the shared false positive rate.
    """
    return total(weights * log_ramp_area(*shared_fpr(scores, values, above), lower, upper))


_jitted_area = jax.jit(image_area)


def shared_fpr(thresholds: Any, values: Any, above: Any) -> tuple[Any, Any]:
    """The shared false positive rate of the rules score > t and score >= t.

    Args:
      thresholds: `[n]` floats.
      values: `[Q]` pixels of the normal images, ascending.
      above: `[Q + 1]` the rate of the pixels from each index of `values` on, then 0.
    """
    xp = namespace(values)
    return above[xp.searchsorted(values, thresholds, side="right")], above[xp.searchsorted(values, thresholds, side="left")]


def check_bounds(fpr_bounds: tuple[float, float]) -> None:
    """Raises a UserError for bounds out of order."""
    lower, upper = fpr_bounds
    if not 0 < lower < upper <= 1:
        raise UserError(f"fpr_bounds must be 0 < lower < upper <= 1, got {fpr_bounds}")


def warn_unresolved(normal: int, lower: float) -> None:
    """One warning when the lower bound is less than one of the `normal` pixels of normal images."""
    if lower * normal < 1:
        warnings.warn(f"{normal} normal pixels do not resolve the FPR bound {lower:g}", RuntimeWarning, stacklevel=3)


def _images(maps: Any, masks: Any) -> tuple[list[Any], list[np.ndarray]]:
    """Checked images one by one, on their device or on the host, and masks on the host."""
    maps, masks = as_pairs(maps, masks)
    check = device_scores if all_on_accelerator(maps) else as_scores
    return [check(each, "maps") for each in maps], [as_binary(each, "masks") for each in masks]


def _normal(maps: list[Any], masks: list[np.ndarray]) -> tuple[Any, Any]:
    """`values` and `above` of `shared_fpr`."""
    normal = [each.ravel() for each, mask in zip(maps, masks, strict=True) if not mask.any()]
    if not normal:
        raise UserError("PIMO needs normal images, whose mask is empty, for its false positive rate")
    xp = namespace(normal[0])
    values = xp.concatenate(normal)
    if len({each.size for each in normal}) == 1:
        return xp.sort(values), real(xp.arange(values.size, -1, -1)) / values.size
    weights = xp.concatenate([xp.full(each.size, 1 / (each.size * len(normal))) for each in normal])
    order = xp.argsort(values)
    above = xp.concatenate([xp.zeros(1), xp.cumsum(weights[order][::-1])])[::-1]
    # the sum of all weights is 1 but for rounding
    return values[order], above / above[0]
