"""The streaming form against the exact one: within its stated bound, mergeable, jittable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadjax import metrics
from iadjax.errors import UserError
from iadjax.metrics import streaming
from iadjax.metrics.histogram import _keys

SMALL = 1 << 17


def example(seed, count=8, size=64, shift=1.5):
    """Overlapping normal and defect scores in a narrow range; square defects."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for mask in masks[1:]:
        row, column = rng.integers(0, size - 12, 2)
        mask[row : row + rng.integers(2, 12), column : column + rng.integers(2, 12)] = True
    maps = 20 + 0.1 * rng.normal(size=masks.shape) + 0.1 * shift * masks
    return maps.astype(np.float32), masks


def check(state, maps, masks):
    found, exact = streaming.compute(state), metrics.pixel_metrics(maps, masks)
    assert found.metrics.keys() == exact.keys() == found.error_bounds.keys()
    for key, value in exact.items():
        assert abs(found.metrics[key] - value) <= found.error_bounds[key] + 1e-12, key
    return found


def test_default_state_is_within_a_bound_below_1e_4():
    maps, masks = example(0, count=40, size=128)
    state = streaming.init(pilot=maps[:2])
    for i in range(0, 40, 8):
        state = streaming.update(state, maps[i : i + 8], masks[i : i + 8])
    assert max(check(state, maps, masks).error_bounds.values()) < 1e-4


@pytest.mark.parametrize("pilot", [True, False])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e20])
def test_bounds_hold_for_coarse_bins(pilot, scale):
    for seed in range(5):
        maps, masks = example(seed)
        maps = (maps - 20) * np.float32(scale)
        state = streaming.init(maps[0] if pilot else None, SMALL)
        check(streaming.update(state, maps, masks), maps, masks)


def test_without_a_pilot_the_bound_says_that_bins_are_coarse_and_a_second_pass_repairs_it():
    maps, masks = example(1)
    first = streaming.update(streaming.init(), maps, masks)
    before = check(first, maps, masks).error_bounds
    after = check(streaming.update(streaming.refine(first), maps, masks), maps, masks).error_bounds
    assert before["pixel_auroc"] > 1e-4
    assert max(after.values()) < 1e-6


def test_ties_are_exact_where_a_bin_is_one_value():
    maps, masks = example(2)
    maps = np.round(4 * maps) / 4
    found = check(streaming.update(streaming.init(maps), maps, masks), maps, masks)
    assert max(found.error_bounds.values()) < 1e-9


def test_one_bin_on_paper():
    # with 2 bins per 1/128 of a power of two, 1.001 (normal) and 1.002 (defect) share one
    maps, masks = np.array([[[1.001, 1.002, 0.5]]], np.float32), np.array([[[0, 1, 0]]])
    found = streaming.compute(streaming.update(streaming.init(num_bins=SMALL), maps, masks))
    assert found.metrics["pixel_auroc"] == pytest.approx(3 / 4)
    assert found.error_bounds["pixel_auroc"] == pytest.approx(1 / 4)
    # best: the defect alone above, 1; tied: 2/3
    assert found.metrics["pixel_f1max"] == pytest.approx(2 / 3)
    assert found.error_bounds["pixel_f1max"] == pytest.approx(1 / 3)
    assert found.metrics["pixel_ap"] == pytest.approx(1 / 2)
    assert found.error_bounds["pixel_ap"] == pytest.approx(1 / 2)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)), st.integers(1, 7))
def test_merge_order_and_batches_do_not_matter(order, cut):
    maps, masks = example(3, size=16)
    empty = streaming.init(maps[0], SMALL)
    whole = streaming.compute(streaming.update(empty, maps, masks))
    parts = [streaming.update(empty, maps[list(some)], masks[list(some)]) for some in (order[:cut], order[cut:])]
    for states in (parts, parts[::-1]):
        found = streaming.compute(streaming.merge(states))
        assert found.metrics == pytest.approx(whole.metrics, abs=1e-12)


def test_lists_of_different_sizes_and_padded_images():
    maps, masks = example(4)
    state = streaming.init(maps[0])
    cut = [each[:, : 40 + i] for i, each in enumerate(maps)], [each[:, : 40 + i] for i, each in enumerate(masks)]
    check(streaming.update(state, *cut), *cut)
    padded = streaming.update(state, maps, masks, valid=np.arange(8) < 5)
    check(padded, maps[:5], masks[:5])


def test_the_jitted_update_counts_as_the_host_and_adds_over_devices():
    maps, masks = example(5)
    empty = streaming.init(maps[0])
    host = streaming.update(empty, maps, masks)
    step = jax.jit(streaming.accumulate)
    device = step(empty, *_labelled(maps[:3], masks[:3]))
    other = step(empty, *_labelled(maps[3:], masks[3:]))
    merged = streaming.merge([device, other])
    for mine, theirs in zip(host.counts, merged.counts, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    # on devices the counts add up as they are
    added = device._replace(counts=jax.tree.map(jnp.add, device.counts, other.counts))
    found = check(added, maps, masks)
    assert found.metrics == pytest.approx(streaming.compute(host).metrics, abs=1e-6)
    skipped = step(empty, maps[:1], -np.ones_like(maps[:1], np.int32), 0)
    assert int(skipped.counts.normal.sum()) == int(skipped.counts.defect.sum()) == 0


def _labelled(maps, masks):
    found = [streaming.component_areas(mask) for mask in masks]
    return maps, np.stack([areas for areas, _ in found]), sum(regions for _, regions in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False), min_size=2, max_size=20))
def test_keys_keep_the_order_of_floats(values):
    values = np.array(values, np.float32)
    keys = _keys(values, np)
    np.testing.assert_array_equal(np.sign(np.subtract.outer(keys.astype(np.int64), keys.astype(np.int64))), _order(values))
    np.testing.assert_array_equal(keys, _keys(jnp.asarray(values), jnp))


def _order(values):
    wide = values.astype(np.float64)
    return (wide[:, None] > wide[None]).astype(int) - (wide[:, None] < wide[None])


def test_plans_fit_their_bins():
    rng = np.random.default_rng(0)
    for pilot in (None, np.zeros(5), rng.normal(size=999), np.float32([20, 20.001]), 10.0 ** rng.uniform(-30, 30, 999)):
        plan = streaming.init(pilot, SMALL).plan
        pieces = 1 << (16 - plan.shift.astype(np.int64))
        np.testing.assert_array_equal(plan.start, np.cumsum(pieces) - pieces)
        assert pieces.sum() <= SMALL and plan.shift.min() >= 0


def test_bad_input_is_one_sentence():
    maps, masks = example(6)
    state = streaming.init(maps[0])
    with pytest.raises(UserError, match="power of two"):
        streaming.init(num_bins=1000)
    with pytest.raises(UserError, match="pilot scores hold 1 NaN"):
        streaming.init(np.array([np.nan]))
    with pytest.raises(UserError, match="different plans"):
        streaming.merge([state, streaming.init()])
    with pytest.raises(UserError, match="at least one state"):
        streaming.merge([])
    maps[0, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(UserError, match="3 NaN or infinite"):
        streaming.compute(streaming.update(state, maps, masks))
    broken = jax.jit(streaming.accumulate)(state, *_labelled(maps, masks))
    assert int(broken.counts.broken) == 3
    with pytest.warns(RuntimeWarning, match="need a defect") as caught:
        assert all(np.isnan(value) for value in streaming.compute(state).metrics.values())
    assert len(caught) == 1
