"""Gaussian-AD against scikit-learn: shrinkage, principal components, distances."""

import jax
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from iadjax.detectors.distribution.gaussian_ad import gaussian_ad
from iadjax.detectors.families.shrinkage import ledoit_wolf
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for

FROZEN = {"backbone": {}}
LAYERS = ("layer1", "layer2")


@pytest.mark.parametrize("shape", [(50, 4), (6, 20)])
def test_shrinkage_is_scikit_learns(shape):
    x = np.random.default_rng(0).standard_normal(shape) @ np.diag(np.arange(1, shape[1] + 1.0))
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(ledoit_wolf(centred), LedoitWolf().fit(x).covariance_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduce", ["none", "pca", "npca"])
def test_scores_follow_the_authors(reduce):
    rng = np.random.default_rng(0)
    # more images than channels: with fewer, the last component has no variance and any direction
    images, tests = rng.random((24, 32, 32, 3), np.float32), rng.random((3, 32, 32, 3), np.float32)
    backbone = tiny.bank()
    detector = gaussian_ad(backbone, layers=LAYERS, reduce=reduce, variance=0.8)
    spec = spec_for(detector, FROZEN, 24, (32, 32, 3))
    state, (phase,) = detector.init(jax.random.key(0), FROZEN, spec), detector.phases(spec)
    update = jax.jit(phase.update)
    for start in range(0, 24, 3):
        state, _ = update(jax.random.key(0), state, FROZEN, batch_of(detector, FROZEN, images[start : start + 3]))
    state = phase.finalize(jax.random.key(0), state, FROZEN)
    expected = 0.0
    for layer in LAYERS:
        x, y = (
            np.asarray(jax.jit(lambda i, layer=layer: backbone.features({}, i, (layer,))[0])(each))
            .mean((1, 2))
            .astype(np.float64)
            for each in (images, tests)
        )
        if reduce != "none":
            pca = PCA(None).fit(x)
            last = (pca.explained_variance_ratio_.cumsum() > 0.8).argmax()
            axes = pca.components_[: last + 1] if reduce == "pca" else pca.components_[last - 1 :]
            x, y = (x - pca.mean_) @ axes.T, (y - pca.mean_) @ axes.T
        gaussian = LedoitWolf().fit(x)
        # scikit-learn's is the squared distance
        expected = expected + np.sqrt(gaussian.mahalanobis(y))
    found = predict(detector, state, FROZEN, tests)
    np.testing.assert_allclose(found.score, expected, rtol=2e-3)
    assert found.map is None


def test_refusals():
    backbone = tiny.bank()
    with pytest.raises(UserError, match="must be 'none', 'pca' or 'npca'"):
        gaussian_ad(backbone, layers=LAYERS, reduce="some")
    detector = gaussian_ad(backbone, layers=LAYERS)
    state = detector.init(jax.random.key(0), FROZEN, spec_for(detector, FROZEN, 1, (32, 32, 3)))
    with pytest.raises(UserError, match="at least two training images, got 0"):
        phases(detector)[0].finalize(jax.random.key(0), state, FROZEN)
