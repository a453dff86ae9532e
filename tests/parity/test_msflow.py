"""MSFlow: the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.detectors.distribution.msflow import Flows, msflow
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_authors():
    card = Card("msflow")
    levels = [card[f"input/features{i}"].transpose(0, 2, 3, 1) for i in range(3)]
    backbone, frozen = harness.given(levels)
    detector = msflow(backbone, layers=backbone.layers, blocks=(1, 2, 2), condition_dimension=16, clip_norm=0.0)
    order = {f"fusion.permute_{i}": card.arrays[f"tensor/fusion.permute_{i}"] for i in range(3)}
    state = from_torch("msflow", {**card.tensors, **order}, harness.empty_state(detector, frozen, 64))
    pooled = [ops.average_pool(jnp.asarray(level))[:, ::2, ::2] for level in levels]
    flows = Flows((1, 2, 2), 16, 1.9)
    z, log_det = jax.jit(flows.apply)(state.variables, pooled)
    for i, each in enumerate(z):
        card.check(f"z{i}", harness.nchw(each))
    card.check("logdet", log_det)
    image = np.zeros((2, 64, 64, 3), np.float32)
    found = harness.predict(detector, state, frozen, image)
    card.check("map_add", found.map)
    card.check("score", found.score)
    new, info = harness.update(detector, state, frozen, harness.batch_of(image))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("msflow", harness.gradients(new))
    again, back = jax.jit(lambda z: flows.apply(state.variables, z, inverse=True))(z)
    for x, y in zip(pooled, again, strict=True):
        np.testing.assert_allclose(y, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -np.asarray(back), rtol=1e-4)
