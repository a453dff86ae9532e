"""IKD's margin, its losses and its map against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.families.student import Student
from iadjax.detectors.teacher_student.ikd import context_similarity, hard_samples, ikd
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN, LAYERS = pyramid(), {"backbone": pyramid_variables()}, ("layer1", "layer2")
KEY, WEIGHTS = jax.random.key(0), (1.0, 2.0)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_margin_and_context_are_those_of_the_kept_places():
    rng = np.random.default_rng(0)
    t, s = unit(rng.standard_normal((3, 4, 5, 6))), unit(rng.standard_normal((3, 4, 5, 6)))
    valid, distance = np.array([True, True, False]), ((t - s) ** 2).sum(-1)
    kept, margin = hard_samples(jnp.float32(distance), jnp.asarray(valid), jnp.float32(0.5), 0.1, 1.0)
    seen = distance[valid]
    assert float(margin) == pytest.approx(0.1 * 0.5 + 0.9 * (seen.mean() + seen.std(ddof=1)), rel=1e-5)
    chosen = (distance >= float(margin)) & valid[:, None, None]
    assert 3 < chosen.sum() < 20
    np.testing.assert_array_equal(kept, chosen)
    # the Gram matrices themselves
    gram = t[chosen] @ t[chosen].T - s[chosen] @ s[chosen].T
    assert float(context_similarity(jnp.float32(t), jnp.float32(s), kept)) == pytest.approx((gram**2).mean(), rel=1e-5)
    # nothing cancels where student and teacher are almost alike
    near = unit(t + 1e-4 * s)
    gram = t[chosen] @ t[chosen].T - near[chosen] @ near[chosen].T
    found = context_similarity(jnp.float32(t), jnp.float32(near), kept)
    assert float(found) == pytest.approx((gram**2).mean(), rel=1e-2)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((2, 64, 64, 3), np.float32)


def test_loss_and_map_follow_the_paper(image):
    """With a margin for each level; tests/parity/test_ikd.py has the authors' shared one."""
    detector = ikd(BACKBONE, layers=LAYERS, level_weights=WEIGHTS, width=4, beta=1.0, gamma=3.0, shared_margin=False)
    spec = spec_for(detector, FROZEN, 2, (64, 64, 3))
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
    batch = batch_of(detector, FROZEN, image)
    network = Student((1, 2), tuple(level.shape[-1] for level in batch.features), (2, 2, 2, 2), False, 64, 4)

    def distances(levels):
        grids = [
            [unit(ops.resize(x, (16, 16), align_corners=True)) for x in pair]
            for pair in zip(batch.features, levels, strict=True)
        ]
        return [(t, s, ((t - s) ** 2).sum(-1)) for t, s in grids]

    variables = {name: state.variables[name] for name in ("params", "batch_stats")}
    (phase,) = detector.phases(spec)
    new, info = jax.jit(phase.update)(KEY, state, FROZEN, batch)
    train = jax.jit(lambda variables: network.apply(variables, image, batch.valid, mutable="batch_stats")[0])
    levels = train(variables)
    margins, total = [0.0, 0.0], 0.0
    for i, (t, s, distance) in enumerate(distances(levels)):
        margins[i] = 0.99 * (distance.mean() + distance.std(ddof=1))
        hard = distance >= margins[i]
        gram = t[hard] @ t[hard].T - s[hard] @ s[hard].T
        total += WEIGHTS[i] / 3 * (distance[hard].mean() + 3.0 * (gram**2).mean())
    assert float(info["loss"]) == pytest.approx(total, rel=1e-4)
    np.testing.assert_allclose(new.variables["mining"]["margins"], margins, rtol=1e-5)
    first, second = (distance for _, _, distance in distances(jax.jit(network.apply)(variables, image)))
    found = predict(detector, state, FROZEN, image)
    np.testing.assert_allclose(found.map, ops.anomaly_map(jnp.float32(first * second), (64, 64)), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found.score, found.map.max((1, 2)))


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="a positive weight for each of 2 layers"):
        ikd(BACKBONE, layers=LAYERS, level_weights=(1.0,))
