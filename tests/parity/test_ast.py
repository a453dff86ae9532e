"""AST: the authors' code with images and depth, whose features and foreground are given here."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.detectors.pytorch import from_torch, table
from iadjax.detectors.teacher_student.ast import Student, Teacher, ast, distance, nll
from iadjax.nn.flow import position_code
from tests.parity import harness
from tests.parity.harness import Card


def test_authors():
    card = Card("ast")
    depth = card["input/depth"][:, 0].reshape(2, 6, 8, 6, 8).transpose(0, 1, 3, 2, 4).reshape(2, 6, 6, 64)
    features = np.concatenate([card["input/features"].transpose(0, 2, 3, 1), depth], axis=-1)
    backbone, frozen = harness.given([features])
    sizes = {"teacher_hidden": 24, "student_hidden": 32}
    detector = ast(backbone, layer="level0", **sizes, weight_decay=0.0)
    state = from_torch("ast", card.tensors, harness.empty_state(detector, frozen, 48))
    for k in range(4):
        stored = state.teacher.variables["constants"][f"module_list_{2 * k + 2}"]["permutation_0"]
        np.testing.assert_array_equal(stored, card[f"tensor/perm_{k}"])
    card.check("pos_enc", harness.nchw(position_code(32, 6, 6)[None]))
    teacher, student = Teacher(4, 24, 32, 1.9), Student(4, 32, 32)
    z, log_det = jax.jit(teacher.apply)(state.teacher.variables, features)
    card.check("teacher_z", harness.nchw(z))
    card.check("teacher_logdet", log_det)
    outputs = jax.jit(student.apply)(state.student.variables, features)
    card.check("student_z", harness.nchw(outputs))
    foreground = card["out/foreground_down"].reshape(2, 6, 6)
    card.check("nll_pixel", nll(z, log_det, foreground))
    card.check("st_pixel", distance(z, outputs, foreground))
    # images alone have no foreground
    found = harness.predict(detector, state, frozen, np.zeros((2, 48, 48, 3), np.float32))
    harness.close(found.score, distance(z, outputs).mean(axis=(1, 2)), what="score")

    def likelihood(params):
        pair = teacher.apply({**state.teacher.variables, "params": params}, features)
        return jnp.mean(nll(*pair, foreground))

    def difference(params):
        model = {"params": params, "batch_stats": state.student.variables["batch_stats"]}
        outputs, _ = student.apply(model, features, jnp.ones(2, bool), mutable="batch_stats")
        return jnp.mean(distance(z, outputs, foreground))

    gradients = {}
    for name, loss, trained in (("teacher", likelihood, state.teacher), ("student", difference, state.student)):
        value, found = jax.jit(jax.value_and_grad(loss))(trained.variables["params"])
        harness.close(value, card[f"loss_{name}"], what=name)
        gradients[name] = found
    both = {**gradients["teacher"], **gradients["student"]}
    assert table("ast") and both.keys() == {*gradients["teacher"], *gradients["student"]}
    card.check_gradients("ast", both)
