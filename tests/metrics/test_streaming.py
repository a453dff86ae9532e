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
from iadjax.metrics.streaming.bins import edges
from iadjax.metrics.streaming.bins import keys as _keys

SMALL = 1 << 17
BOUNDS = 1e-3, 1e-1
THRESHOLDS = 0.7, 20.0, 20.0637, -1e300, 1e300


def example(seed, count=8, size=64, shift=1.5, largest=12):
    """Overlapping normal and defect scores in a narrow range; square defects."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for mask in masks[1:]:
        row, column = rng.integers(0, size - largest, 2)
        height, width = rng.integers(largest // 6, largest, 2)
        mask[row : row + height, column : column + width] = True
    maps = 20 + 0.1 * rng.normal(size=masks.shape) + 0.1 * shift * masks
    return maps.astype(np.float32), masks


def everything(state):
    """(value, bound) of every figure of a pixel stream."""
    found = streaming.compute(state)
    values = {key: (value, found.error_bounds[key]) for key, value in found.metrics.items()}
    values |= {"iou": streaming.iou_max(state), "aupro to 1": streaming.aupro(state, 1.0)}
    values["aupimo"] = streaming.aupimo(state, BOUNDS)
    for threshold in THRESHOLDS:
        values[f"dice {threshold}"] = streaming.dice(state, threshold)
        for name, each in streaming.precision_recall_f1(state, threshold)._asdict().items():
            values[f"{name} {threshold}"] = each
    return values


def exactly(maps, masks):
    """The same figures in the exact form."""
    values = metrics.pixel_metrics(maps, masks)
    values |= {"iou": metrics.iou_max(maps, masks), "aupro to 1": metrics.aupro(maps, masks, 1.0)}
    values["aupimo"] = np.nanmean(metrics.aupimo(maps, masks, BOUNDS))
    scores, labels = (np.concatenate([np.ravel(each) for each in some]) for some in (maps, masks))
    for threshold in THRESHOLDS:
        values[f"dice {threshold}"] = metrics.dice(maps, masks, threshold)
        for name, each in metrics.precision_recall_f1(scores, labels, threshold)._asdict().items():
            values[f"{name} {threshold}"] = each
    return values


def check(state, maps, masks, bound=np.inf, exact=None):
    """Every figure lies within its bound, and that within `bound`; `exact` holds the exact figures, if they are known."""
    found, exact = everything(state), exactly(maps, masks) if exact is None else exact
    assert found.keys() == exact.keys()
    for key, value in exact.items():
        assert abs(found[key][0] - value) <= found[key][1] + 1e-12, key
        assert 0 <= found[key][1] < bound, (key, found[key])
    return streaming.compute(state)


NORMAL, DEFECT = 0, 1.5
SCORES = {
    "gaussian": lambda z, rng: z,
    "log-normal": lambda z, rng: np.exp(2 * z),
    "20 to 20.001": lambda z, rng: 20 + 0.001 / (1 + np.exp(-z)),
    "tiny": lambda z, rng: 1e-12 * np.exp(z),
    "heavy tail": lambda z, rng: np.where(rng.random(z.shape) < 0.05, 5 * rng.standard_cauchy(z.shape), z),
    "zeros and 20 to 20.001": lambda z, rng: np.where(rng.random(z.shape) < 0.3, 0, 20 + 0.001 / (1 + np.exp(-z))),
    "growing": lambda z, rng: z * np.exp(np.arange(len(z)) / 6)[:, None, None],
}


@pytest.mark.parametrize("name", SCORES)
def test_default_state_without_a_pilot_is_within_1e_4(name):
    _, masks = example(0, count=36, size=128, largest=60)
    rng = np.random.default_rng(1)
    maps = SCORES[name](rng.normal(NORMAL, 1, masks.shape) + DEFECT * masks, rng).astype(np.float32)
    whole, parts = streaming.init(), [streaming.init(), streaming.init()]
    for i in range(0, 36, 4):
        whole = streaming.update(whole, maps[i : i + 4], masks[i : i + 4])
        # two processes, each of which places its own bins
        parts[i // 4 % 2] = streaming.update(parts[i // 4 % 2], maps[i : i + 4], masks[i : i + 4])
    exact = exactly(maps, masks)
    for state in (whole, streaming.merge(parts), streaming.merge(parts[::-1])):
        # of scores whose range never ceases to grow, the bins know too little in time
        check(state, maps, masks, 1e-3 if name == "growing" else 1e-4, exact)


@pytest.mark.parametrize("pilot", [True, False])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e20])
def test_bounds_hold_for_coarse_bins(pilot, scale):
    for seed in range(5):
        maps, masks = example(seed)
        maps = (maps - 20) * np.float32(scale)
        state = streaming.init(maps[0] if pilot else None, SMALL)
        check(streaming.update(state, maps, masks), maps, masks)


def test_fixed_bins_can_be_coarse_and_a_second_pass_repairs_it():
    # what a jitted step without a pilot does
    maps, masks = example(1)
    first = jax.jit(streaming.accumulate)(streaming.init(), *_labelled(maps, masks))
    before = check(first, maps, masks).error_bounds
    after = check(streaming.update(streaming.refine(first), maps, masks), maps, masks).error_bounds
    assert before["pixel_auroc"] > 1e-4
    assert max(after.values()) < 1e-6


def test_moved_bins_keep_what_is_known():
    maps, masks = example(7)
    state = streaming.update(streaming.init(np.zeros(10**6), SMALL), maps, masks)
    edges_before = {int(key) for key in edges(state.plan, SMALL)[0]}
    moved = streaming.merge([state, streaming.init(maps, SMALL)])
    begin = edges(moved.plan, SMALL)[0]
    scores = _keys(maps[~masks], np).astype(np.int64)
    truth = np.array([np.sum(scores >= key) for key in begin[::97]])
    low = np.cumsum(moved.counts.sums["normal"][::-1])[::-1][::97]
    slack = moved.counts.slack["normal"][::97]
    assert np.all(low <= truth) and np.all(truth <= low + slack)
    kept = np.array([int(key) in edges_before for key in begin[::97]])
    assert np.all(slack[kept] == 0) and np.any(slack[~kept] > 0)
    check(moved, maps, masks)


def test_ties_are_exact_where_a_bin_is_one_value():
    maps, masks = example(2)
    maps = np.round(4 * maps) / 4
    found = check(streaming.update(streaming.init(maps), maps, masks), maps, masks)
    assert max(found.error_bounds.values()) < 1e-9


def test_one_bin_on_paper():
    # with 2 bins per 1/128 of a power of two, 1.001 (normal) and 1.002 (defect) share one
    maps, masks = np.array([[[1.001, 1.002, 0.5]]], np.float32), np.array([[[False, True, False]]])
    found = streaming.compute(jax.jit(streaming.accumulate)(streaming.init(num_bins=SMALL), *_labelled(maps, masks)))
    assert found.metrics["pixel_auroc"] == pytest.approx(3 / 4, abs=1e-6)
    assert found.error_bounds["pixel_auroc"] == pytest.approx(1 / 4, abs=1e-6)
    # best: the defect alone above, 1; tied: 2/3
    assert found.metrics["pixel_f1max"] == pytest.approx(2 / 3)
    assert found.error_bounds["pixel_f1max"] == pytest.approx(1 / 3)
    assert found.metrics["pixel_ap"] == pytest.approx(1 / 2)
    assert found.error_bounds["pixel_ap"] == pytest.approx(1 / 2)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)), st.integers(1, 7))
def test_merge_order_and_batches_do_not_matter(order, cut):
    maps, masks = example(3, size=16)
    empty = streaming.init(maps, SMALL)
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
    empty = streaming.init(maps)
    host = streaming.update(empty, maps, masks)
    step = jax.jit(streaming.accumulate)
    device = step(empty, *_labelled(maps[:3], masks[:3]))
    other = step(empty, *_labelled(maps[3:], masks[3:]))
    merged = streaming.merge([device, other])
    jax.tree.map(lambda mine, other: np.testing.assert_allclose(mine, other, rtol=1e-6), host.counts, merged.counts)
    assert merged.unit > 1e-8 > host.unit
    check(merged, maps, masks)
    # on devices the counts add up as they are
    added = device._replace(counts=jax.tree.map(jnp.add, device.counts, other.counts))
    found = check(added, maps, masks)
    assert found.metrics == pytest.approx(streaming.compute(host).metrics, abs=1e-6)
    skipped = step(empty, maps[:1], -np.ones_like(maps[:1], np.int32), 0)
    assert all(not np.any(each) for each in jax.tree.leaves(skipped.counts))


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
    with pytest.raises(UserError, match="different kinds or sizes"):
        streaming.merge([state, streaming.init(num_bins=SMALL)])
    with pytest.raises(UserError, match="different kinds or sizes"):
        streaming.merge([state, streaming.init_spro()])
    with pytest.raises(UserError, match="at least one state"):
        streaming.merge([])
    maps[0, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(UserError, match="3 NaN or infinite"):
        streaming.compute(streaming.update(state, maps, masks))
    broken = jax.jit(streaming.accumulate)(state, *_labelled(maps, masks))
    assert int(broken.counts.totals["broken"]) == 3
    with pytest.warns(RuntimeWarning, match="need a defect") as caught:
        assert all(np.isnan(value) for value in streaming.compute(state).metrics.values())
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match="does not|need"):
        assert np.isnan(streaming.iou_max(state).value) and np.isnan(streaming.aupimo(state).error_bound)
    with pytest.warns(RuntimeWarning, match="nothing"):
        assert np.isnan(streaming.dice(state, 0.0).value)


def test_on_an_accelerator_bins_are_placed_and_filled_there(monkeypatch):
    monkeypatch.setattr("iadjax.metrics.inputs.on_accelerator", lambda array: isinstance(array, jax.Array))
    maps, masks = example(8)
    state = streaming.init()
    for i in range(0, 8, 2):
        state = streaming.update(state, jnp.asarray(maps[i : i + 2]), masks[i : i + 2])
    assert isinstance(state.counts.sums["normal"], jax.Array)
    check(state, maps, masks, bound=1e-3)


def defects_of(masks, kinds):
    """Each mask cut into two defects with a saturation below its area; none for good images."""
    halves = np.arange(masks.shape[2]) < masks.shape[2] // 2
    cut = [[mask & halves, mask & ~halves] if kind != "good" else [] for mask, kind in zip(masks, kinds, strict=True)]
    return [[metrics.Defect(half, 0.37 * half.sum() + 0.2) for half in some if half.any()] for some in cut]


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("levels", [3, 1000, None])
def test_spro_of_a_stream(levels, on_device, monkeypatch):
    maps, masks = example(9, count=12)
    kinds = ["good", "structural_anomalies", "logical"] * 4
    masks[::3] = False
    defects = defects_of(masks, kinds)
    if levels:
        maps = np.round(maps * levels) / np.float32(levels)
    if on_device:
        monkeypatch.setattr("iadjax.metrics.inputs.on_accelerator", lambda array: isinstance(array, jax.Array))
    states = [streaming.init_spro(), streaming.init_spro()]
    for i in range(0, 12, 3):
        batch = [jnp.asarray(each) if on_device else each for each in maps[i : i + 3]]
        states[i // 6] = streaming.update_spro(states[i // 6], batch, defects[i : i + 3], kinds[i : i + 3])
    # tied pixels share a bin, where float32 sums round
    bound = 1e-3 if on_device else 1e-4
    for limit in (0.05, 1.0):
        exact = metrics.loco_au_spro(list(maps), defects, kinds, limit)
        for order in (states, states[::-1]):
            found = streaming.au_spro(streaming.merge(order), limit)
            assert found.keys() == exact.keys()
            for key, value in exact.items():
                assert abs(found[key].value - value) <= found[key].error_bound + 1e-12 < bound
    with pytest.raises(UserError, match="'good' has defects"):
        streaming.update_spro(states[0], list(maps[1:2]), defects[1:2], ["good"])
    with pytest.warns(RuntimeWarning, match="AU-sPRO needs"):
        assert np.isnan(streaming.au_spro(streaming.init_spro())["mean"].value)
