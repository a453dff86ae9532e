"""PANDA in NumPy: centre, loss, elastic weight consolidation, clipped steps, nearest neighbours, refusals."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from iadjax.detectors.one_class.panda import panda
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE, LAYERS = 32, ("layer3",)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)


def features(variables, images):
    return np.asarray(pyramid().features(variables, images, LAYERS)[0], np.float64).mean(axis=(1, 2))


def begun(images, **options):
    """The detector after the pass of the centre."""
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    detector = panda(backbone, layers=LAYERS, trained=("conv3",), epochs=1, **options)
    spec = spec_for(detector, frozen, 3, (SIZE, SIZE, 3))
    state, phases = detector.init(jax.random.key(0), frozen, spec), detector.phases(spec)
    update = jax.jit(phases[0].update)
    for part, valid in ((images[:2], [True, True]), (images[[2, 0]], [True, False])):
        state, _ = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, part, valid=valid))
    return detector, frozen, phases, state


def test_a_step_follows_the_formulas(images, tmp_path):
    rng = np.random.default_rng(1)
    shapes = {"conv3.kernel": (24, 24, 2, 2), "conv3.bias": (24,)}
    save_file({name: rng.random(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "fisher.safetensors")
    detector, frozen, phases, state = begun(images, ewc=10.0, fisher=str(tmp_path / "fisher.safetensors"), weight_decay=0.0)
    x = features(frozen["backbone"], images)
    np.testing.assert_allclose(state.centre, x.mean(axis=0), rtol=1e-5)
    batch, update = batch_of(detector, frozen, images[:2]), jax.jit(phases[1].update)
    state, info = update(jax.random.key(0), state, frozen, batch)
    np.testing.assert_allclose(info["loss"], np.mean((x[:2] - x.mean(axis=0)) ** 2), rtol=1e-4)
    assert info["loss_elastic"] == 0
    # the norm of the step is the rate times that of the clipped gradient
    first, own = frozen["backbone"]["params"]["conv3"], state.trained.variables["params"]["conv3"]
    steps = {name: np.asarray(own[name], np.float64) - np.asarray(first[name], np.float64) for name in ("kernel", "bias")}
    norm = np.sqrt(sum(np.sum(step**2) for step in steps.values()))
    np.testing.assert_allclose(norm, 1e-2 * 1e-3, rtol=2e-2)
    # eq. 4 in the next step
    _, info = update(jax.random.key(0), state, frozen, batch)
    fisher = state.constants["conv3"]
    elastic = 10.0 / 2 * sum(np.sum(np.asarray(fisher[name]) * steps[name] ** 2) for name in steps)
    np.testing.assert_allclose(info["loss_elastic"], elastic, rtol=1e-4)
    assert set(state.trained.variables["params"]) == {"conv3"}


def test_score_is_the_sum_of_the_two_nearest_squared_distances(images):
    detector, frozen, phases, state = begun(images)
    state, update = phases[1].finalize(jax.random.key(0), state, frozen), jax.jit(phases[2].update)
    for part, valid in ((images[:2], [True, True]), (images[[2, 0]], [True, False])):
        state, _ = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, part, valid=valid))
    state = phases[2].finalize(jax.random.key(0), state, frozen)
    tests = np.random.default_rng(5).random((2, SIZE, SIZE, 3), np.float32)
    x, y = (features(frozen["backbone"], each) for each in (tests, images))
    squared = np.sort(((x[:, None] - y[None]) ** 2).sum(axis=-1), axis=1)
    found = predict(detector, state, frozen, tests)
    np.testing.assert_allclose(found.score, squared[:, :2].sum(axis=1), rtol=1e-3)
    assert found.map is None


def test_bad_options_are_refused(images, tmp_path):
    save_file({"conv3.bias": np.zeros(24, np.float32)}, tmp_path / "part.safetensors")
    for options, match in (
        ({"ewc": 1.0}, "give a file with detector.fisher"),
        ({"ewc": 1.0, "fisher": "nowhere"}, "there is no file"),
        ({"ewc": 1.0, "fisher": str(tmp_path / "part.safetensors")}, "has no conv3.kernel"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ):
        with pytest.raises(UserError, match=match):
            begun(images, **options)
    with pytest.raises(UserError, match="no module that begins with layer9"):
        detector = panda(pyramid(), layers=LAYERS, trained=("layer9",))
        frozen = {"backbone": pyramid_variables()}
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 3, (SIZE, SIZE, 3)))
