"""The forms for accelerators, on the CPU as a device: equal to the host forms, jittable, and only results leave it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import metrics
from iadjax.errors import UserError
from iadjax.metrics import Defect, binary, inputs, loco, overlap, pixel, ranks

# the package holds a function of the same name
pimo = importlib.import_module("iadjax.metrics.pimo")
TOLERANCE = {False: 1e-6, True: 1e-9}


@pytest.fixture(params=[False, True], ids=["float32", "x64"])
def tolerance(request, monkeypatch):
    """The calls of an accelerator, in both of JAX's modes, and how close to float64 on the host they are."""
    monkeypatch.setattr(inputs, "on_accelerator", lambda array: isinstance(array, jax.Array))
    with jax.enable_x64(request.param):
        yield TOLERANCE[request.param]


@pytest.fixture
def small_reads(monkeypatch):
    """Fails a test in which NumPy, or JAX itself, brings more than 8 values of one JAX array to the host."""
    kind = type(jnp.zeros(1))
    value = kind._value

    def check(array):
        # raised plainly: an assert would print the array, which reads it
        if isinstance(array, jax.Array) and array.size > 8:
            raise AssertionError(f"{array.shape} went to the host")

    class Guarded:
        """NumPy as the metrics see it."""

        def __getattr__(self, name):
            found = getattr(np, name)
            # shapes and types are known without reading
            if not callable(found) or isinstance(found, type) or name in ("ndim", "shape", "size"):
                return found

            def call(*arguments, **options):
                jax.tree.map(check, (arguments, options))
                return found(*arguments, **options)

            call.reduceat = getattr(found, "reduceat", None)
            return call

    # on the CPU jax.transfer_guard sees no transfer
    guarded = Guarded()
    for module in (binary, inputs, loco, overlap, pimo, pixel, ranks):
        monkeypatch.setattr(module, "np", guarded)
    monkeypatch.setattr(kind, "_value", property(lambda array: check(array) or value.fget(array)))
    for reader in (guarded.asarray, jax.device_get, lambda array: array.tolist()):
        with pytest.raises(AssertionError, match="went to the host"):
            reader(jnp.zeros(9))


def example(seed, levels, count=5, size=24):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for mask in masks[2:]:
        for _ in range(3):
            row, column = rng.integers(0, size - 6, 2)
            mask[row : row + rng.integers(1, 6), column : column + rng.integers(1, 6)] = True
    maps = rng.integers(-levels, levels, masks.shape) + (levels * masks) // 2
    return maps.astype(np.float32), masks


def defects_of(masks):
    halves = [[mask & (np.arange(mask.shape[1]) < 12), mask & (np.arange(mask.shape[1]) >= 12)] for mask in masks]
    return [[Defect(half, 0.37 * half.sum() + 0.2) for half in some if half.any()] for some in halves]


def everything(maps, masks):
    """Every metric of scores or maps as one dict of numbers or arrays."""
    flat, labels = maps.reshape(-1), masks.reshape(-1)
    found = dict(metrics.pixel_metrics(maps, masks))
    found |= {"list " + key: value for key, value in metrics.pixel_metrics(list(maps), list(masks)).items()}
    found |= metrics.image_metrics(flat, labels)
    found["f1"] = metrics.f1_max(flat, labels, return_threshold=True)
    found["iou"] = metrics.iou_max(maps, masks, return_threshold=True)
    found["at"] = metrics.precision_recall_f1(flat, labels, 1.1)
    found["dice"] = metrics.dice(maps, masks, 0.9), metrics.dice(list(maps), list(masks), 3.0)
    found["aupimo"] = metrics.aupimo(maps, masks, (1e-2, 0.3))
    cropped = [each[:, : 20 + i] for i, each in enumerate(maps)], [each[:, : 20 + i] for i, each in enumerate(masks)]
    found["aupimo of sizes"] = metrics.aupimo(*cropped, (1e-2, 0.3))
    found["spro"] = metrics.spro(list(maps), defects_of(masks), 2.5)
    found["au_spro"] = metrics.au_spro(list(maps), defects_of(masks), (0.05, 0.3, 1.0))
    return found


@pytest.mark.parametrize("levels", [3, 1000, 2**22])
def test_equals_the_host_form_and_reads_nothing_but_results(levels, tolerance, small_reads):
    maps, masks = example(levels, levels)
    expected = everything(maps, masks)
    found = everything(jnp.asarray(maps), masks)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("levels", [3, 1000])
def test_curves_stay_on_the_device(levels, tolerance, small_reads, request):
    maps, masks = example(levels, levels)
    on_device = jnp.asarray(maps)
    pairs = [
        (metrics.roc_curve(on_device.ravel(), masks.ravel()), metrics.roc_curve(maps.ravel(), masks.ravel())),
        (metrics.pr_curve(on_device.ravel(), masks.ravel()), metrics.pr_curve(maps.ravel(), masks.ravel())),
        (metrics.pro_curve(on_device, masks), metrics.pro_curve(maps, masks)),
        *((mine[1:], other[1:]) for mine, other in zip(metrics.pimo(on_device, masks), metrics.pimo(maps, masks), strict=True)),
    ]
    assert all(isinstance(each, jax.Array) for found, _ in pairs for each in found)
    # the comparison reads what the metrics did not
    request.getfixturevalue("monkeypatch").undo()
    for found, expected in pairs:
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


def test_many_pixels_keep_float32_within_1e_6(monkeypatch):
    # 2.4 million pixels, 100,000 of them in defects: where plain float32 sums would drift
    monkeypatch.setattr(inputs, "on_accelerator", lambda array: isinstance(array, jax.Array))
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 640, 640), bool)
    masks[2:, 40:200, 100:260] = True
    maps = (rng.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    device = jnp.asarray(maps)
    expected, found = metrics.pixel_metrics(maps, masks), metrics.pixel_metrics(device, masks)
    assert found == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(metrics.aupimo(device, masks), metrics.aupimo(maps, masks), atol=1e-6)
    defects = [[Defect(mask, 9000)] if mask.any() else [] for mask in masks]
    assert metrics.au_spro(list(device), defects) == pytest.approx(metrics.au_spro(list(maps), defects), abs=1e-6)


def test_the_pure_forms_run_inside_another_jit():
    maps, masks = example(7, 50)
    scores, labels = maps.ravel(), masks.ravel()

    @jax.jit
    def inside(scores, labels):
        found = ranks.rank_labelled(scores, labels)
        values, above = jnp.sort(scores[: 2 * 24 * 24]), jnp.arange(2 * 24 * 24, -1, -1) / (2 * 24 * 24)
        return {
            "auroc": binary.ranks_auroc(found),
            "ap": binary.ranks_average_precision(found),
            "f1": binary.ranks_f1_max(found),
            "iou": pixel.ranks_iou_max(found),
            "area": ranks.overlap_area(found, 0.05),
            "flags": binary.flag_counts(scores, labels, 3.0),
            "steps": binary.steps(scores, labels)[0][-1],
            "pimo": pimo.image_area(scores, labels / jnp.sum(labels), values, above, 1e-2, 0.3),
        }

    found = inside(scores, labels)
    assert float(found["auroc"]) == pytest.approx(metrics.auroc(scores, labels), abs=1e-6)
    assert float(found["ap"]) == pytest.approx(metrics.average_precision(scores, labels), abs=1e-6)
    assert [*map(float, found["f1"])] == pytest.approx(metrics.f1_max(scores, labels, return_threshold=True), abs=1e-6)
    assert [*map(float, found["iou"])] == pytest.approx(metrics.iou_max(maps, masks, return_threshold=True), abs=1e-6)
    before = overlap.ramp_area(*(each / np.sum(~labels) for each in counts_among(scores, labels)), 0.05)
    assert float(found["area"]) == pytest.approx(before.mean(), abs=1e-6)
    flags = scores >= 3
    assert [*map(int, found["flags"])] == [np.sum(flags & labels), np.sum(flags), np.sum(labels)]
    assert int(found["steps"]) == labels.sum()
    one = [maps[0], maps[1], scores[None]], [masks[0], masks[1], labels[None]]
    assert float(found["pimo"]) == pytest.approx(metrics.aupimo(*one, (1e-2, 0.3))[2], abs=1e-6)


def counts_among(scores, labels):
    """Negatives above, and at or above, each positive: all pairs."""
    pairs = scores[~labels][None], scores[labels][:, None]
    return (pairs[0] > pairs[1]).sum(axis=1), (pairs[0] >= pairs[1]).sum(axis=1)


def test_device_ranks_by_hand():
    scores, labels = jnp.array([3.0, 1, 2, 2, 5]), jnp.array([False, False, True, False, True])
    found = ranks.rank_labelled(scores, labels, jnp.array([0.25, 0.75, 9, 9]), size=4)
    np.testing.assert_array_equal(found.thresholds[:2], [5, 2])
    np.testing.assert_array_equal(found.count, [1, 1, 0, 0])
    np.testing.assert_array_equal(found.weight, [0.75, 0.25, 0, 0])
    np.testing.assert_array_equal(found.true[:2], [1, 2])
    np.testing.assert_array_equal(found.false[:2], [0, 2])
    np.testing.assert_array_equal(found.false_before[:2], [0, 1])
    assert (int(found.positives), int(found.negatives)) == (2, 3)


def test_a_threshold_between_two_float32_scores(tolerance):
    # in float32 1 + 1e-9 rounds onto the score 1
    for scores in (np.ones(2, np.float32), jnp.ones(2, jnp.float32)):
        assert metrics.precision_recall_f1(scores, [0, 1], 1 + 1e-9).recall == 0
        assert metrics.precision_recall_f1(scores, [0, 1], 1 - 1e-9).recall == 1
        assert metrics.precision_recall_f1(scores, [0, 1], -1e300).recall == 1
        assert metrics.precision_recall_f1(scores, [0, 1], 1e300).recall == 0


def test_bad_input_on_a_device_is_the_same_sentence(tolerance):
    scores = jnp.array([1.0, jnp.nan, 2.0, jnp.inf])
    with pytest.raises(UserError, match="1 NaN and 1 infinite of 4"):
        metrics.auroc(scores, np.array([0, 1, 0, 1]))
    with pytest.raises(UserError, match="0 and 1"):
        metrics.auroc(jnp.arange(4.0), jnp.array([0, 1, 2, 1]))
    with pytest.raises(UserError, match="0 and 1"):
        metrics.auroc(jnp.arange(2.0), jnp.array([0, -1]))
    with pytest.raises(UserError, match="maps hold 1 NaN and 0 infinite of 2"):
        metrics.aupimo(scores.reshape(2, 1, 2), np.array([[[0, 0]], [[1, 0]]]))
    with pytest.warns(RuntimeWarning, match="both classes"):
        assert np.isnan(metrics.auroc(jnp.arange(4.0), jnp.zeros(4, int)))
    assert metrics.auroc(jnp.arange(4), jnp.array([0, 0, 255, 255])) == 1
