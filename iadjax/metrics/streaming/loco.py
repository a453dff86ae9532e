"""Streams of MVTec LOCO AD: AU-sPRO of structural and logical anomalies."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.data.defects import Defect
from iadjax.errors import UserError
from iadjax.metrics.inputs import all_on_accelerator, undefined
from iadjax.metrics.loco import KINDS, checked_shapes, free_pixels, plain_kinds, saturated
from iadjax.metrics.overlap import check_limits, ramp_area
from iadjax.metrics.streaming import bounds
from iadjax.metrics.streaming.bounds import Bounded
from iadjax.metrics.streaming.state import State, count_device, count_host, empty, own, place, settle

__all__ = ["accumulate_spro", "au_spro", "init_spro", "update_spro"]


def init_spro(pilot: Any = None, num_bins: int = 1 << 20) -> State:
    """An empty state for `au_spro`; arguments and errors as `streaming.init`."""
    return empty(("good", "free_structural", "free_logical", "covered"), KINDS, KINDS, pilot, num_bins)


def update_spro(state: State, maps: Sequence[Any], defects: Sequence[Sequence[Defect]], kinds: Sequence[str]) -> State:
    """The state after a batch of whole images. A defect lies in one image, so its saturated overlap is computed there.

    Args:
      state: from `init_spro`, `update_spro` or `merge`; not changed.
      maps, defects: as in `metrics.au_spro`; maps on an accelerator are counted there.
      kinds: as in `metrics.loco_au_spro`.

    Raises:
      UserError: as `metrics.au_spro`. NaN and infinities are counted; `au_spro` raises for them.
    """
    plain = plain_kinds(kinds, len(maps))
    checked_shapes(maps, defects)
    if any(len(some) for some, kind in zip(defects, plain, strict=True) if kind == "good"):
        raise UserError("an image of the kind 'good' has defects; name it 'structural' or 'logical'")
    state = place(state, list(maps))
    on_device = all_on_accelerator(maps)
    if not on_device:
        state = own(state)
    for each, some, kind in zip(maps, defects, plain, strict=True):
        free = free_pixels(each.shape, some)
        if on_device:
            masks = np.array([defect.mask for defect in some], bool).reshape(len(some), *each.shape)
            state = _jitted(state, each, free, masks, np.array([defect.saturation for defect in some], np.float32), kind=kind)
            continue
        scores, weight = np.asarray(each), np.zeros(each.shape)
        for defect in some:
            mask = np.asarray(defect.mask, bool)
            weight[mask] += _steps(-scores[mask], defect.saturation)
        count_host(state, scores.ravel(), *_named(free.ravel(), ~free.ravel(), weight.ravel(), len(some), kind))
    return settle(state)


def accumulate_spro(
    state: State, scores: jax.Array, free: jax.Array, masks: jax.Array, saturations: jax.Array, kind: str
) -> State:
    """`update_spro` for one image as a pure function, for use inside `jax.jit`; bins do not move.

    Args:
      state: a state of JAX arrays.
      scores: `[H, W]` float.
      free: `[H, W]` bool, the pixels that no defect covers; all False leaves the image out, with `masks` `[0, H, W]`.
      masks: `[D, H, W]` bool, one defect each.
      saturations: `[D]` float, their saturation areas.
      kind: "good", "structural" or "logical"; static.
    """
    weight = jnp.zeros(scores.size)
    for mask, saturation in zip(masks.reshape(-1, scores.size), saturations, strict=True):
        # pixels outside the defect come last
        weight += jnp.where(mask, _steps(jnp.where(mask, -scores.ravel(), jnp.inf), saturation), 0)
    covered = masks.reshape(-1, scores.size).any(axis=0)
    return count_device(state, scores.ravel(), *_named(free.ravel(), covered, weight, len(masks), kind))


_jitted = jax.jit(accumulate_spro, static_argnames="kind")


def au_spro(state: State, fpr_limit: float = 0.05) -> dict[str, Bounded]:
    """`metrics.loco_au_spro` of a stream: `structural`, `logical` and their `mean`, each with its error bound.

    A kind without a defect, or without a defect-free pixel in its images and the good ones, is NaN, with one warning.

    Raises:
      UserError: the limit is out of range, or NaN or infinite scores were seen (counted).
    """
    check_limits(fpr_limit)
    state = bounds.check(state)
    found = {}
    for kind in KINDS:
        names, count = ("good", f"free_{kind}"), float(state.counts.totals[kind])
        free = sum(float(np.sum(state.counts.sums[name], dtype=np.float64)) for name in names)
        if not count or not free:
            found[kind] = Bounded(*[undefined("AU-sPRO needs a defect and defect-free pixels")] * 2)
            continue
        curve = bounds.curve(state, bounds.range_of(state, names, free), bounds.range_of(state, (kind,), count))
        found[kind] = bounds.area(curve, partial(ramp_area, limit=fpr_limit))
    return found | {"mean": Bounded(*(float(np.mean(column)) for column in zip(*found.values(), strict=True)))}


def _steps(negated: Any, saturation: Any) -> Any:
    """What each pixel of a defect adds to its saturated overlap; `negated` are the scores times -1, tied ones in any order."""
    return saturated(negated.argsort().argsort(), saturation)


def _named(free: Any, covered: Any, weight: Any, defects: int, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if kind == "good":
        return {"good": free}, {}
    return {f"free_{kind}": free, "covered": covered, kind: weight}, {kind: defects}
