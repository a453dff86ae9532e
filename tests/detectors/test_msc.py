"""MSC in NumPy: the contrastive loss, padded rows, a step, the score, views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.one_class.msc import mean_shifted_contrastive, msc
from iadjax.errors import UserError
from iadjax.synthesis.contrastive import contrastive_view
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE, LAYERS = 32, ("layer3",)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrastive(x, centre, temperature):
    """The paper's sum over views, in float64: `[B, 2, D]` to the mean over views."""
    z = unit(np.asarray(x, np.float64) - centre)
    total = []
    for i in range(len(z)):
        for k in range(2):
            other = [z[j, m] for j in range(len(z)) for m in range(2) if (j, m) != (i, k)]
            similar = np.exp(np.array(other) @ z[i, k] / temperature)
            total.append(-np.log(np.exp(z[i, k] @ z[i, 1 - k] / temperature) / similar.sum()))
    return np.mean(total)


def test_the_loss_is_that_of_the_paper_without_padded_rows():
    rng = np.random.default_rng(0)
    x, centre = unit(rng.standard_normal((4, 2, 6))).astype(np.float32), rng.standard_normal(6).astype(np.float32) / 4
    loss = jax.jit(mean_shifted_contrastive, static_argnums=3)
    whole = loss(x, centre, np.ones(4, bool), 0.25)
    np.testing.assert_allclose(whole.mean(), contrastive(x, centre, 0.25), rtol=1e-5)
    valid = np.array([True, False, True, True])
    np.testing.assert_allclose(loss(x, centre, valid, 0.5)[valid].mean(), contrastive(x[valid], centre, 0.5), rtol=1e-5)
    # one image alone has nothing to repel
    assert abs(loss(x, centre, np.array([True, False, False, False]), 0.25)[0]) < 1e-6


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)


def features(variables, images):
    x = pyramid().features(variables, images, LAYERS)[0]
    return unit(np.asarray(x, np.float64).mean(axis=(1, 2)))


def begun(images, **options):
    """The detector after the pass of the centre."""
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    detector = msc(backbone, layers=LAYERS, trained=("conv3",), epochs=1, **options)
    spec = spec_for(detector, frozen, 3, (SIZE, SIZE, 3))
    state, phases = detector.init(jax.random.key(0), frozen, spec), detector.phases(spec)
    state, _ = jax.jit(phases[0].update)(jax.random.key(0), state, frozen, batch_of(detector, frozen, images))
    return detector, frozen, phases, state


@pytest.mark.parametrize("angular", [False, True])
def test_a_step_follows_the_formulas(images, angular):
    detector, frozen, phases, state = begun(images, angular=angular, learning_rate=1e-3, weight_decay=0.1)
    centre = features(frozen["backbone"], images).mean(axis=0)
    np.testing.assert_allclose(state.centre, centre, rtol=1e-5)
    views = np.random.default_rng(1).random((3, 2, SIZE, SIZE, 3), np.float32)
    valid = np.array([True, True, False])
    batch = batch_of(detector, frozen, images, valid=valid, extra={"views": views})
    update = jax.jit(phases[1].update)
    new, info = update(jax.random.key(0), state, frozen, batch)
    x = np.stack([features(frozen["backbone"], views[:2, k]) for k in range(2)], axis=1)
    shift = unit(centre) if angular else centre
    expected = contrastive(x, shift, 0.25) + (np.mean(((x - shift) ** 2).sum(axis=(1, 2))) if angular else 0)
    np.testing.assert_allclose(info["loss"], expected, rtol=1e-4)
    # what the step has beside the decay is the gradient: a central difference along it
    old, own = (np.asarray(each.trained.variables["params"]["conv3"]["kernel"], np.float64) for each in (state, new))
    gradient = (old - own) / 1e-3 - 0.1 * old
    found = []
    for step in (1e-3, -1e-3):
        moved = jax.tree.map(jnp.array, state)
        kernel = old + step * gradient / np.linalg.norm(gradient)
        moved.trained.variables["params"]["conv3"]["kernel"] = jnp.asarray(kernel, jnp.float32)
        found.append(update(jax.random.key(0), moved, frozen, batch)[1]["loss"])
    np.testing.assert_allclose((found[0] - found[1]) / 2e-3, np.linalg.norm(gradient), rtol=1e-2)


def test_score_is_the_sum_of_the_two_nearest_squared_distances_of_unit_vectors(images):
    detector, frozen, phases, state = begun(images)
    state = phases[1].finalize(jax.random.key(0), state, frozen)
    state, _ = jax.jit(phases[2].update)(jax.random.key(0), state, frozen, batch_of(detector, frozen, images))
    state = phases[2].finalize(jax.random.key(0), state, frozen)
    tests = np.random.default_rng(5).random((2, SIZE, SIZE, 3), np.float32)
    x, y = (features(frozen["backbone"], each) for each in (tests, images))
    squared = np.sort(((x[:, None] - y[None]) ** 2).sum(axis=-1), axis=1)
    found = predict(detector, state, frozen, tests)
    np.testing.assert_allclose(found.score, squared[:, :2].sum(axis=1), rtol=1e-3)
    assert found.map is None


def test_views():
    image = np.random.default_rng(0).random((48, 40, 3), np.float32)
    detector, _, phases, _ = begun(np.zeros((1, SIZE, SIZE, 3), np.float32))
    views = phases[1].augment(np.random.default_rng(1), image, None)["views"]
    assert views.shape == (2, 48, 40, 3) and views.dtype == np.float32 and views.min() >= 0 and views.max() <= 1
    assert not np.array_equal(*views)
    again = [contrastive_view(np.random.default_rng(2), image) for _ in range(2)]
    assert np.array_equal(*again)
    # a part of a ramp, enlarged, is a ramp: of a fifth to all of the area
    ramp = np.tile(np.linspace(0, 1, 60, dtype=np.float32)[:, None, None], (1, 60, 3))
    parts = [np.ptp(contrastive_view(np.random.default_rng(seed), ramp).mean(axis=(1, 2))) for seed in range(60)]
    assert 0.2 < min(parts) < 0.6 and max(parts) > 0.8


def test_bad_options_are_refused():
    for options, match in (({"temperature": 0.0}, "temperature"), ({"layers": ("layer9",)}, "layer9")):
        with pytest.raises(UserError, match=match):
            msc(pyramid(), **{"layers": LAYERS, **options})
