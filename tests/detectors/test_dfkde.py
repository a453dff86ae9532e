"""DFKDE against scikit-learn's PCA and SciPy's density."""

import jax
import numpy as np
import pytest
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA

from iadjax.detectors.distribution.dfkde import dfkde
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, predict, spec_for

FROZEN = {"backbone": {}}
LAYERS = ("layer1", "layer2")


def vectors(image):
    features = jax.jit(lambda image: tiny.bank().features({}, image, LAYERS))
    return np.concatenate([np.asarray(level, np.float64).mean(axis=(1, 2)) for level in features(image)], axis=1)


def fitted(detector, images):
    spec = spec_for(detector, FROZEN, len(images), images.shape[1:])
    state, (phase,) = detector.init(jax.random.key(0), FROZEN, spec), detector.phases(spec)
    update = jax.jit(phase.update)
    for start in range(0, len(images), 3):
        state, _ = update(jax.random.key(0), state, FROZEN, batch_of(detector, FROZEN, images[start : start + 3]))
    return phase.finalize(jax.random.key(0), state, FROZEN)


@pytest.mark.parametrize("scaling", ["scale", "norm"])
def test_score_is_the_density_of_principal_components(scaling):
    rng = np.random.default_rng(0)
    images, tests = rng.random((24, 32, 32, 3), np.float32), rng.random((3, 32, 32, 3), np.float32)
    detector = dfkde(tiny.bank(), layers=LAYERS, num_components=4, scaling=scaling)
    state = fitted(detector, images)
    pca = PCA(4).fit(vectors(images))
    x, y = pca.transform(vectors(images)), pca.transform(vectors(tests))
    longest = np.linalg.norm(x, axis=1).max()
    x, y = ((z / (longest if scaling == "scale" else np.linalg.norm(z, axis=1, keepdims=True))).T for z in (x, y))
    found = predict(detector, state, FROZEN, tests)
    np.testing.assert_allclose(found.score, -gaussian_kde(x).logpdf(y), rtol=2e-3)
    assert found.map is None


def test_far_images_differ():
    """Densities in float32 would be 0 for both."""
    rng = np.random.default_rng(0)
    images = 0.5 + 0.01 * rng.standard_normal((12, 32, 32, 3)).astype(np.float32)
    detector = dfkde(tiny.bank(), layers=LAYERS, num_components=2)
    state = fitted(detector, images)
    near, far, farther = predict(detector, state, FROZEN, np.stack([images[0], 0 * images[0], 0 * images[0] + 2])).score
    assert near < 10 and 1e3 < far < farther < np.inf


def test_refusals():
    detector = dfkde(tiny.bank(), layers=LAYERS, num_components=6)
    with pytest.raises(UserError, match="=6 is too many for 6 training images of 36 features; it can be at most 5"):
        fitted(detector, np.random.default_rng(0).random((6, 32, 32, 3), np.float32))
    same = np.repeat(np.random.default_rng(0).random((1, 32, 32, 3), np.float32), 9, axis=0)
    with pytest.raises(UserError, match="do not differ in 6 components"):
        fitted(detector, same)
    with pytest.raises(UserError, match=r"detector.scaling must be 'scale' or 'norm'"):
        dfkde(tiny.bank(), layers=LAYERS, scaling="max")
