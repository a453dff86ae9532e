"""RD++ beside its parity card: the transport between halves, the image with noise, refusals."""

import jax
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.teacher_student.rdpp import Projections, rdpp
from iadjax.errors import UserError
from tests.direct import batch_of, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY = jax.random.key(0)


@pytest.mark.slow
def test_halves_of_a_batch_are_drawn_together():
    rng = np.random.default_rng(0)
    image = rng.random((2, 64, 64, 3), np.float32)
    values = []
    for halves in (False, True):
        detector = rdpp(BACKBONE, halves=halves, projection_weight=2.0)
        spec = spec_for(detector, FROZEN, 2, (64, 64, 3), batch_size=2)
        state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
        batch = batch_of(detector, FROZEN, image, extra={"noisy": image[::-1].copy()})
        (phase,) = detector.phases(spec)
        # the loss alone: without gradients there is little to compile
        loss = jax.jit(lambda *given, phase=phase: phase.update(*given)[1]["loss"])
        values.append(float(loss(KEY, state, FROZEN, batch)))
    projected = jax.jit(Projections().apply)({"params": state.variables["params"]["proj"]}, batch.features)
    points = [jax.nn.softmax(level.reshape(2, -1)) for level in projected]
    # of two images, each half is one
    divergence = jax.jit(lambda each: ops.sinkhorn_divergence(each[:1], each[1:], diameter=2.0))
    truth = sum(float(divergence(each)) for each in points)
    assert truth > 0
    # of single points, the divergence is their cost, half the squared distance
    assert truth == pytest.approx(sum(0.5 * float(((each[0] - each[1]) ** 2).sum()) for each in points), rel=1e-3)
    assert values[1] - values[0] == pytest.approx(2.0 * truth / 1.11, abs=1e-6)
    # with one real image there is nothing to draw together
    alone = batch._replace(valid=np.array([True, False]))
    new, info = jax.jit(phase.update)(KEY, state, FROZEN, alone)
    assert np.isfinite(info["loss"]) and all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(new))


def test_augment_adds_noise_in_a_rectangle():
    (phase,) = rdpp(BACKBONE).phases(spec_for(rdpp(BACKBONE), FROZEN, 2, (64, 64, 3)))
    image = np.full((128, 128, 3), 0.5, np.float32)
    noisy = phase.augment(np.random.default_rng(0), image, lambda: image)["noisy"]
    assert 0 < np.any(noisy != image, axis=-1).mean() < 0.03


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="must name three levels for rdpp"):
        rdpp(BACKBONE, layers=("layer1",))
    with pytest.raises(UserError, match=r"margin must be in \[0, 1\]"):
        rdpp(BACKBONE, margin=2.0)
    detector = rdpp(BACKBONE)
    with pytest.raises(UserError, match="needs three grids that halve"):
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 2, (72, 72, 3)))
