"""AST: its flow against autodiff, and what its student learns; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.teacher_student.ast import Teacher, ast
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.parity import harness


def test_flow_is_invertible_and_its_log_determinants_are_autodiffs():
    rng = np.random.default_rng(0)
    teacher = Teacher(2, 3, 4, 1.9)
    x = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    variables = jax.jit(teacher.init)(jax.random.key(0), x)
    # the couplings begin as the identity
    noise = lambda leaf: leaf + 0.5 * rng.standard_normal(leaf.shape).astype(np.float32)  # noqa: E731
    variables = {**variables, "params": jax.tree.map(noise, variables["params"])}

    @jax.jit
    def everything(x):
        z, log_det = teacher.apply(variables, x)
        jacobian = jax.jacfwd(lambda x: teacher.apply(variables, x.reshape(1, 2, 3, 4))[0].ravel())(x[0].ravel())
        return z, log_det, teacher.apply(variables, z, inverse=True), jacobian

    z, log_det, (again, back), jacobian = everything(x)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(back, -np.asarray(log_det), atol=1e-4)
    assert log_det.shape == (2, 2, 3)
    assert np.linalg.slogdet(np.asarray(jacobian, np.float64))[1] == pytest.approx(float(log_det[0].sum()), rel=1e-4)


def test_the_student_learns_the_teachers_outputs():
    features = np.random.default_rng(0).standard_normal((4, 4, 4, 6)).astype(np.float32)
    backbone, frozen = harness.given([features])
    sizes = {"coupling_blocks": 1, "teacher_hidden": 4, "student_blocks": 1, "student_hidden": 16, "condition_dimension": 4}
    detectors = [ast(backbone, layer="level0", **sizes, learning_rate=1e-2, scores=scores) for scores in ("mean", "max")]
    spec = spec_for(detectors[0], frozen, 4, (8, 8, 3))
    state = jax.jit(lambda key: detectors[0].init(key, frozen, spec))(jax.random.key(0))
    first, second = (jax.jit(phase.update) for phase in detectors[0].phases(spec))
    image = np.zeros((4, 8, 8, 3), np.float32)
    batch = batch_of(detectors[0], frozen, image)
    likelihoods, differences = [], []
    for _ in range(30):
        state, info = first(jax.random.key(0), state, frozen, batch)
        likelihoods.append(float(info["loss"]))
    teacher = jax.tree.map(np.asarray, state.teacher.variables)
    for _ in range(30):
        state, info = second(jax.random.key(0), state, frozen, batch)
        differences.append(float(info["loss"]))
    assert likelihoods[-1] < likelihoods[0] - 0.1 and differences[-1] < 0.5 * differences[0]
    assert all(map(np.array_equal, *map(jax.tree.leaves, (teacher, state.teacher.variables))))
    mean, largest = (predict(each, state, frozen, image) for each in detectors)
    np.testing.assert_array_equal(mean.map, largest.map)
    assert mean.map.shape == (4, 8, 8) and np.all(largest.score > mean.score)
    # a map of twice the size keeps the mean nearly
    np.testing.assert_allclose(mean.score, mean.map.mean(axis=(1, 2)), rtol=0.2)


def test_refusals():
    backbone, frozen = harness.given([jnp.zeros((2, 4, 4, 1))])
    with pytest.raises(UserError, match="'mean' or 'max'"):
        ast(backbone, layer="level0", scores="sum")
    with pytest.raises(UserError, match="condition_dimension must be a positive multiple of 4"):
        ast(backbone, layer="level0", condition_dimension=6)
    detector = ast(backbone, layer="level0")
    with pytest.raises(UserError, match="at least two channels"):
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 4, (8, 8, 3)))
