"""US: the known re-implementation, whose networks end in 512 decoded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.backbones.weights import fill_by_table
from iadjax.detectors.families.moments import merged, no_moments
from iadjax.detectors.pytorch import table
from iadjax.detectors.teacher_student.us import compactness, errors
from iadjax.nn.patch_network import PatchNetwork
from tests.parity import harness
from tests.parity.harness import Card

CARD = Card("us")


def built(size):
    network = PatchNetwork(size, decode=512)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    module = table("us")
    return network, fill_by_table(zeros, CARD.part(f"net{size}."), module.TABLE, module._layout)


@pytest.mark.parametrize("size", [17, 33, 65])
def test_dense_networks(size):
    network, variables = built(size)
    CARD.check(f"dense{size}", jax.jit(lambda x: network.apply(variables, x, dense=True))(CARD["image"]))


def test_patches_and_the_teachers_loss():
    network, variables = built(17)
    patches = CARD["input/patches17"].transpose(0, 2, 3, 1) / 2 + 0.5

    def loss(params):
        outputs = network.apply({"params": params}, patches)
        parts = jnp.mean(jnp.sum((outputs - CARD["input/target"]) ** 2, axis=1)), compactness(outputs)
        return sum(parts), (*parts, outputs)

    (value, (distance, compact, outputs)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    CARD.check("patch17", outputs)
    harness.close(distance, CARD["loss_distillation"], what="distillation")
    harness.close(compact, CARD["loss_compactness"], what="compactness")
    harness.close(value, CARD["loss"], what="loss")
    for layer in ("conv1", "decode"):
        total, norm = CARD[f"grad/net17.{layer}.weight"]
        ours = np.asarray(gradients[layer]["kernel"], np.float64)
        harness.report(layer, abs(np.linalg.norm(ours) - norm) / norm, harness.GRADIENT)
        harness.report(f"{layer} sum", abs(ours.sum() - total) / (norm * ours.size**0.5), harness.GRADIENT)


def test_errors_and_moments():
    teacher, students = CARD["input/teacher_map"], np.moveaxis(CARD["input/student_maps"], 1, 0)
    found = jax.jit(errors)(teacher, students)
    CARD.check("error_map", found[..., 0])
    CARD.check("variance_map", found[..., 1])
    harness.close(np.mean(np.sum((students[0] - teacher) ** 2, axis=-1)), CARD["loss_student"], what="student")
    moments = no_moments(8)
    for values in (teacher, students[0], students[1]):
        moments = jax.jit(merged)(moments, values, np.ones(1, bool))
    CARD.check("running_mu", moments.mean)
    CARD.check("running_var", moments.variance)
