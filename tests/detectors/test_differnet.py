"""DifferNet: rotations of one image, the flow, what is drawn, and refusals; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.backbones.backbone import Backbone, plain_features
from iadjax.detectors.distribution.differnet import Flow, differnet
from iadjax.errors import UserError
from tests.direct import phases, predict, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

FROZEN = {"backbone": {}}
# quarters of an image as channels: means over positions change with rotations
QUARTERS = Backbone(
    "quarters",
    ("pixels",),
    lambda key, layers: {},
    plain_features(lambda variables, image, layers: (jnp.concatenate(jnp.split(image, 2, axis=1), axis=-1),)),
)


def built(size=8, **options):
    detector = differnet(
        QUARTERS, **{"layers": ("pixels",), "scales": 1, "coupling_blocks": 2, "hidden": 5, "sigma": 0.0, **options}
    )
    return detector, jax.jit(detector.init, static_argnums=2)(
        jax.random.key(1), FROZEN, spec_for(detector, FROZEN, 4, (size, size, 3))
    )


def test_the_flow_is_undone():
    flow = Flow(3, 8, 3.0)
    y = jax.random.normal(jax.random.key(1), (4, 7))
    variables = flow.init(jax.random.key(0), y)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    noisy = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(next(keys), leaf.shape), variables["params"])
    variables = {**variables, "params": noisy}
    z, log_det = jax.jit(flow.apply)(variables, y)
    again, back = flow.apply(variables, z, inverse=True)
    np.testing.assert_allclose(again, y, atol=1e-4)
    np.testing.assert_allclose(log_det, -np.asarray(back), rtol=1e-4, atol=1e-5)


def test_the_score_is_the_mean_over_regular_rotations():
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    detector, state = built(rotations=4)
    single, _ = built(rotations=1)
    whole = predict(detector, state, FROZEN, images)
    views = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    each = [predict(single, state, FROZEN, np.ascontiguousarray(view)) for view in views]
    np.testing.assert_allclose(whole.score, np.mean([view.score for view in each], axis=0), rtol=1e-4)
    # magnitudes of the gradients, brought back to the image
    back = [np.rot90(np.sqrt(view.map), -k, axes=(1, 2)) for k, view in enumerate(each)]
    np.testing.assert_allclose(whole.map, np.mean(back, axis=0) ** 2, rtol=1e-3, atol=1e-9)
    assert np.ptp([view.score for view in each]) > 0
    plain, _ = built(rotations=4, gradient_map=False)
    without = predict(plain, state, FROZEN, images)
    np.testing.assert_allclose(without.score, whole.score, rtol=1e-5)
    assert without.map is None


def test_a_step_sees_the_rotations_that_were_drawn():
    detector, state = built(train_rotations=3)
    (phase,) = phases(detector)
    degrees = phase.augment(np.random.default_rng(0), np.zeros((8, 8, 3)), None)["degrees"]
    assert degrees.shape == (3,) and degrees.dtype == np.float32 and np.abs(degrees).max() <= 180
    assert ops.rotate(jnp.ones((3, 8, 8, 1)), jnp.asarray(degrees)).min() == 0


def test_refusals():
    with pytest.raises(UserError, match="images of 2 x 2 pixels have no 3 scales"):
        built(size=2, scales=3)
    with pytest.raises(UserError, match="clamp"):
        built(clamp=0.0)
