"""DDAD: what calibration keeps, guidance, refusals; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.diffusion.ddad import adaptation_loss, ddad
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

SMALL = {
    "width": 4,
    "multipliers": (1,),
    "blocks": 1,
    "attention": (),
    "heads": 1,
    "layers": ("layer1",),
    "compared": ("layer1",),
}
IMAGE = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)


def test_the_pixel_distance_is_scaled_by_the_training_images():
    """A network that finds no noise: the restored image is noise and image in known parts."""
    frozen = {"backbone": pyramid_variables()}
    detector = ddad(pyramid(), **SMALL, start=20, skip=10, sigma=0.0)
    spec = spec_for(detector, frozen, 3, (16, 16, 3))
    assert [phase.name for phase in detector.phases(spec)] == ["denoise", "adapt", "calibrate"]
    state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
    update = jax.jit(detector.phases(spec)[2].update)
    none = ddad(pyramid(), **SMALL, start=20, skip=10, sigma=0.0, pixel_weight=0.0)
    features = np.asarray(predict(none, state, frozen, IMAGE).map)
    valid = [True, True, False]
    calibrated, info = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, IMAGE, valid=valid))
    assert float(info["features"]) == pytest.approx(features[:2].max(), rel=1e-4)
    # the largest so far: one image more, then the first two again
    for valid in ([True, True, True], [True, False, False]):
        calibrated, info = update(jax.random.key(0), calibrated, frozen, batch_of(detector, frozen, IMAGE, valid=valid))
    assert float(info["features"]) == pytest.approx(features.max(), rel=1e-4)
    found = predict(detector, calibrated, frozen, IMAGE)
    pixels = np.asarray(found.map) - features
    assert pixels.min() >= 0 and pixels.max() == pytest.approx(features.max(), rel=1e-3)
    np.testing.assert_array_equal(found.score, np.asarray(found.map).max(axis=(1, 2)))


def test_adaptation_compares_whole_levels():
    rng = np.random.default_rng(0)
    a, b, c, d = (
        [rng.standard_normal((2, 4, 4, 3)).astype(np.float32), rng.standard_normal((2, 2, 2, 5)).astype(np.float32)]
        for _ in range(4)
    )

    def distance(x, y):
        x, y = (each.reshape(2, -1).astype(np.float64) for each in (x, y))
        return 1 - (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)

    truth = sum(distance(p, q) + 0.3 * (distance(q, r) + distance(p, s)) for p, q, r, s in zip(a, b, c, d, strict=True))
    found = adaptation_loss(*([jnp.asarray(x) for x in each] for each in (a, b, c, d)), 0.3)
    np.testing.assert_allclose(found, truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"compared": ("layer3",)}, "compared must be some of detector.layers, layer1; got"),
        ({"start": 1000}, "start must be in"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        ddad(pyramid(), **{**SMALL, **options})
