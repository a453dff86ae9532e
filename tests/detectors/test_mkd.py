"""MKD beside its parity card: guided back-propagation, raw pixels, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.detectors.teacher_student import mkd as module
from iadjax.errors import UserError
from tests.direct import predict, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY, OPTIONS = jax.random.key(0), {"layers": ("layer1", "layer2"), "num_scored": 2, "width": 4}


def test_a_guided_relu_lets_positive_gradients_through():
    x, gradient = jnp.array([-1.0, 2.0, 3.0, 0.0]), jnp.array([1.0, -1.0, 0.5, 1.0])
    value, pull = jax.vjp(module.guided_relu, x)
    np.testing.assert_array_equal(value, [0, 2, 3, 0])
    np.testing.assert_array_equal(pull(gradient)[0], [0, 0, 0.5, 0])


def test_the_map_is_the_gradient_of_the_score():
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    found = {}
    for kind in ("gradients", "guided"):
        detector = module.mkd(BACKBONE, **OPTIONS, sigma=0.0, map_kind=kind)
        state = detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 1, (32, 32, 3)))
        found[kind] = predict(detector, state, FROZEN, image)
    assert float(found["guided"].score[0]) == float(found["gradients"].score[0])
    assert not np.allclose(found["guided"].map, found["gradients"].map, rtol=0.1)
    # the gradients of one pixel, by differences
    detector = module.mkd(BACKBONE, **OPTIONS, sigma=0.0)
    step, slopes = 1e-2, []
    for colour in range(3):
        moved = [image.copy(), image.copy()]
        moved[0][0, 13, 14, colour] += step
        moved[1][0, 13, 14, colour] -= step
        up, down = (float(predict(detector, state, FROZEN, each).score[0]) for each in moved)
        slopes.append((up - down) / (2 * step))
    assert found["gradients"].map[0, 13, 14] == pytest.approx(np.abs(slopes).sum(), rel=0.05)


def test_normalised_maps_reach_one_in_every_image():
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    plain, scaled = (module.mkd(BACKBONE, **OPTIONS, sigma=0.0, normalize_map=flag) for flag in (False, True))
    state = plain.init(KEY, FROZEN, spec_for(plain, FROZEN, 1, (32, 32, 3)))
    one, other = (predict(each, state, FROZEN, image).map for each in (plain, scaled))
    for a, b in zip(np.asarray(one, np.float64), np.asarray(other), strict=True):
        low, high = a.min(), np.percentile(a, 99)
        np.testing.assert_allclose(b, np.clip((a - low) / (high - low), 0, 1), atol=1e-4)


def test_bad_options_are_refused():
    with pytest.raises(UserError, match=r"num_scored must be in \[1, 2\]"):
        module.mkd(BACKBONE, **{**OPTIONS, "num_scored": 3})
    with pytest.raises(UserError, match="map_kind must be 'gradients' or 'guided'"):
        module.mkd(BACKBONE, **OPTIONS, map_kind="smooth")
    # its grids are rounded up
    detector = module.mkd(backbones.backbone("filter_bank"), **OPTIONS)
    with pytest.raises(UserError, match="mkd needs layers of rising strides"):
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 1, (36, 36, 3)))
