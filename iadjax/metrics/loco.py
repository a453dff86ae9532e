"""Saturated per-region overlap and the split figures of MVTec LOCO AD.

Bergmann et al. 2022, Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection, IJCV.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.data.defects import Defect
from iadjax.errors import UserError
from iadjax.metrics.binary import auroc
from iadjax.metrics.inputs import all_on_accelerator, as_scores, device_scores, least_at, undefined
from iadjax.metrics.overlap import check_limits, namespace
from iadjax.metrics.ranks import apply, device_rank, overlap_area, padded_size, rank

__all__ = [
    "KINDS", "au_spro", "checked_images", "checked_shapes", "free_pixels", "loco_au_spro", "loco_image_auroc", "plain_kinds",
    "saturated", "spro",
]  # fmt: skip


KINDS = ("structural", "logical")


def spro(maps: Sequence[Any], defects: Sequence[Sequence[Defect]], threshold: float) -> float:
    """Saturated per-region overlap at a threshold: sPRO = (1 / m) sum_i min(|A_i & P| / s_i, 1).

    A_i are the pixels of the i-th of all m defects, s_i is its saturation area in pixels. P are the pixels with
    score >= threshold.

    Args:
      maps: one `[H, W]` array per image.
      defects: the defects of each image; empty for a good one.
      threshold: in the units of the maps.

    Returns:
      A float; NaN with one warning without a defect.

    Raises:
      UserError: shapes do not fit, a defect is empty or saturates at 0, or maps hold NaN or infinities (counted).
    """
    maps = checked_images(maps, defects)
    found = [
        min(int((each[np.asarray(defect.mask, bool)] >= least_at(threshold, each.dtype)).sum()) / defect.saturation, 1.0)
        for each, some in zip(maps, defects, strict=True)
        for defect in some
    ]
    return float(np.mean(found)) if found else undefined("sPRO needs a defect")


def au_spro(
    maps: Sequence[Any], defects: Sequence[Sequence[Defect]], fpr_limit: float | Sequence[float] = 0.05
) -> float | tuple[float, ...]:
    """Area under sPRO over the false positive rate, to a limit and divided by it; exact, as `aupro`.

    The false positive rate is over the pixels of all images that no defect covers.

    Args:
      maps, defects: as in `spro`.
      fpr_limit: in (0, 1], or several.

    Returns:
      A float, or one per limit; NaN with one warning without a defect or a defect-free pixel.

    Raises:
      UserError: as `spro`, or a limit is out of range.
    """
    check_limits(fpr_limit)
    maps = checked_images(maps, defects)
    count = sum(map(len, defects))
    free = [free_pixels(each.shape, some) for each, some in zip(maps, defects, strict=True)]
    rest = sum(int(each.sum()) for each in free)
    if not count or not rest:
        nan = undefined("AU-sPRO needs a defect and defect-free pixels")
        return (nan,) * len(fpr_limit) if isinstance(fpr_limit, Sequence) else nan
    xp = namespace(maps[0])
    found = [_defect_steps(each, defect) for each, some in zip(maps, defects, strict=True) for defect in some]
    positives, weights = (xp.concatenate(column) for column in zip(*found, strict=True))
    if xp is np:
        negatives = np.concatenate([each[mask] for each, mask in zip(maps, free, strict=True)])
        ranks = rank(positives, negatives, weights / count)
    else:
        # in one shape: what is not counted lies below every score
        hidden = [jnp.where(mask, each, -jnp.inf).ravel() for each, mask in zip(maps, free, strict=True)]
        ranks = _jitted_rank(positives, weights / count, jnp.concatenate(hidden), rest)
    areas = tuple(apply(overlap_area, ranks, each) for each in (fpr_limit if isinstance(fpr_limit, Sequence) else (fpr_limit,)))
    return areas if isinstance(fpr_limit, Sequence) else areas[0]


def _defect_steps(scores: Any, defect: Defect) -> tuple[Any, Any]:
    """Scores of a defect's pixels, descending, and what each adds to its term."""
    index = np.flatnonzero(defect.mask)
    if not isinstance(scores, jax.Array):
        descending = np.sort(scores.ravel()[index])[::-1]
        return descending, saturated(np.arange(len(descending)), defect.saturation)
    index = np.pad(index, (0, padded_size(len(index)) - len(index)), constant_values=scores.size)
    return _jitted_steps(scores.ravel(), index, defect.saturation)


@jax.jit
def _jitted_steps(scores: jax.Array, index: jax.Array, saturation: float) -> tuple[jax.Array, jax.Array]:
    descending = jnp.sort(scores.at[index].get(mode="fill", fill_value=-jnp.inf))[::-1]
    return descending, saturated(jnp.arange(descending.size), saturation)


_jitted_rank = jax.jit(device_rank)


def saturated(position: Any, saturation: float) -> Any:
    """What the pixel at this position (0 is the highest score) adds to a defect's term of sPRO, min(area found / s, 1)."""
    xp = namespace(position)
    return xp.clip(saturation - position, 0, 1) / saturation


def free_pixels(shape: tuple[int, int], defects: Sequence[Defect]) -> np.ndarray:
    """`[H, W]` bool, the pixels that no defect covers."""
    free = np.ones(shape, bool)
    for defect in defects:
        free &= ~np.asarray(defect.mask, bool)
    return free


def loco_au_spro(
    maps: Sequence[Any], defects: Sequence[Sequence[Defect]], kinds: Sequence[str], fpr_limit: float = 0.05
) -> dict[str, float]:
    """AU-sPRO of the structural and of the logical anomalies, each with all good images, and the mean of the two.

    Args:
      maps, defects, fpr_limit: as in `au_spro`.
      kinds: for each image "good", "structural" or "logical"; the folder names `structural_anomalies` and
        `logical_anomalies` of the data set work too.

    Returns:
      A dict with `structural`, `logical`, `mean`.
    """

    def area(chosen):
        return au_spro([maps[i] for i in chosen], [defects[i] for i in chosen], fpr_limit)

    return _split(area, kinds, len(maps))


def loco_image_auroc(scores: Any, kinds: Sequence[str]) -> dict[str, float]:
    """Image AUROC of good against structural and of good against logical anomalies, and the mean of the two.

    Args:
      scores: `[N]`.
      kinds: as in `loco_au_spro`.

    Returns:
      A dict with `structural`, `logical`, `mean`.
    """
    scores = as_scores(scores)
    return _split(lambda chosen: auroc(scores[chosen], [kinds[i] != "good" for i in chosen]), kinds, len(scores))


def plain_kinds(kinds: Sequence[str], count: int) -> list[str]:
    """ "good", "structural" or "logical" for each image, from those names or the folders'.

    Raises:
      UserError: another name, or not one for each of `count` images.
    """
    plain = [kind.removesuffix("_anomalies") for kind in kinds]
    if len(plain) != count or not set(plain) <= {"good", *KINDS}:
        raise UserError(
            f"kinds must be 'good', 'structural' or 'logical' for each of {count} images, "
            f"got {len(plain)} of {sorted(set(plain))}"
        )
    return plain


def checked_images(maps: Sequence[Any], defects: Sequence[Sequence[Defect]]) -> list[Any]:
    """The maps, each on its accelerator or on the host.

    Raises:
      UserError: as `spro`.
    """
    checked_shapes(maps, defects)
    check = device_scores if all_on_accelerator(maps) else as_scores
    return [check(each, "maps") for each in maps]


def checked_shapes(maps: Sequence[Any], defects: Sequence[Sequence[Defect]]) -> None:
    """Raises a UserError where maps and defects do not fit, or a defect cannot be found."""
    if len(maps) != len(defects):
        raise UserError(f"got {len(maps)} maps but defects of {len(defects)} images")
    for i, (each, some) in enumerate(zip(maps, defects, strict=True)):
        for defect in some:
            if np.shape(each) != np.shape(defect.mask):
                sizes = f"map {i} is {np.shape(each)} but a defect's mask is {np.shape(defect.mask)}"
                raise UserError(f"{sizes}; resize the map to it")
            if defect.saturation <= 0 or not np.any(defect.mask):
                raise UserError(f"a defect of image {i} marks nothing or has the saturation area {defect.saturation}")


def _split(metric, kinds: Sequence[str], count: int) -> dict[str, float]:
    plain = plain_kinds(kinds, count)
    found = {kind: metric([i for i, each in enumerate(plain) if each in ("good", kind)]) for kind in KINDS}
    return found | {"mean": float(np.mean(list(found.values())))}
