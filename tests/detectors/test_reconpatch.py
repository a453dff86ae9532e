"""ReConPatch against its formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from iadjax.detectors.memory_bank import reconpatch as module
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY = jax.random.key(0)


def pairwise_and_contextual(z, k, sigma, alpha):
    """Eq. 1-5 one pair at a time."""
    d = cdist(z, z)
    order = np.argsort(d, axis=1, kind="stable")
    near, half = ([set(row[:count]) for row in order] for count in (k, k // 2))
    n = len(z)
    shared = np.array([[len(near[i] & near[j]) / k if j in near[i] else 0 for j in range(n)] for i in range(n)])
    mutual = [[m for m in half[i] if i in half[m]] for i in range(n)]
    expanded = np.array([shared[mutual[i]].mean(0) for i in range(n)])
    return alpha * np.exp(-(d**2) / sigma) + (1 - alpha) * (expanded + expanded.T) / 2


def contrast(z, w, margin):
    d = cdist(z, z)
    delta = d / d.mean(1, keepdims=True)
    return (w * delta**2 + (1 - w) * np.maximum(margin - delta, 0) ** 2).mean(1).sum()


@pytest.mark.parametrize("k", [2, 5, 40])
def test_similarities_and_loss_follow_the_paper(k):
    z = np.random.default_rng(0).normal(size=(30, 4))
    w = pairwise_and_contextual(z, min(k, 30), 2.0, 0.3)
    found = module.similarity(jnp.asarray(z, jnp.float32), 2.0, k, 0.3)
    np.testing.assert_allclose(found, w, atol=1e-5)
    loss = jax.jit(module.relaxed_contrastive)
    np.testing.assert_allclose(loss(jnp.asarray(z, jnp.float32), found, 0.8), contrast(z, w, 0.8), rtol=1e-4)
    # of patches that coincide, each has itself as its nearest neighbour, and the gradient is finite
    same = jnp.asarray(np.repeat(z[:3], 6, axis=0), jnp.float32)
    near = module.similarity(same, 2.0, k, 0.3)
    assert np.all(np.isfinite(near)) and np.all(np.diag(near) > 0.3)
    assert np.all(np.isfinite(jax.grad(lambda z: module.relaxed_contrastive(z, near, 1.0))(same)))


def test_training_the_bank_and_scores():
    options = {"layers": ("layer2",), "dimension": 6, "projection_dimension": 4, "epochs": 2, "coreset_ratio": 1.0}
    detector = module.reconpatch(BACKBONE, **options, learning_rate=1e-2, ema_decay=0.75, reweight=False, sigma=0.0)
    train = np.random.default_rng(0).random((3, 64, 64, 3), np.float32)
    spec = spec_for(detector, FROZEN, 3, (64, 64, 3), steps_per_epoch=1)
    learn, fit = detector.phases(spec)
    state = detector.init(KEY, FROZEN, spec)
    batch = batch_of(detector, FROZEN, train, valid=[True, True, False])
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.trained.variables["params"])
    x = np.asarray(batch.features, np.float64).reshape(3, 64, -1)
    h = x @ params["f"]["kernel"] + params["f"]["bias"]
    z = h @ params["g"]["kernel"] + params["g"]["bias"]
    # before the first step the average is the map itself; the padded image does not count
    truth = np.mean([contrast(each, pairwise_and_contextual(each, 5, 1.0, 0.5), 1.0) for each in z[:2]])
    new, info = jax.jit(learn.update)(KEY, state, FROZEN, batch)
    assert float(info["loss"]) == pytest.approx(truth, rel=1e-4)
    moved = new.trained.variables["params"]["f"]["kernel"]
    np.testing.assert_allclose(new.average["f"]["kernel"], 0.75 * params["f"]["kernel"] + 0.25 * moved, atol=1e-6)
    filling = learn.finalize(KEY, new, FROZEN)
    filling, _ = jax.jit(fit.update)(KEY, filling, FROZEN, batch)
    final = fit.finalize(KEY, filling, FROZEN)
    bank = x[:2].reshape(128, -1) @ np.asarray(moved, np.float64) + np.asarray(new.trained.variables["params"]["f"]["bias"])
    assert int(final.memory.rows) == 128
    np.testing.assert_allclose(final.memory.features[:128], bank, atol=1e-5)
    test = np.random.default_rng(1).random((1, 64, 64, 3), np.float32)
    queries = np.asarray(batch_of(detector, FROZEN, test).features, np.float64).reshape(64, -1)
    mapped = queries @ np.asarray(final.f["kernel"], np.float64) + np.asarray(final.f["bias"])
    assert float(predict(detector, final, FROZEN, test).score[0]) == pytest.approx(cdist(mapped, bank).min(1).max(), rel=1e-4)


@pytest.mark.parametrize(("option", "value"), [("context", 1), ("alpha", 1.5), ("ema_decay", 1.0), ("dimension", 0)])
def test_bad_options_are_refused(option, value):
    with pytest.raises(UserError, match=option):
        module.reconpatch(BACKBONE, **{option: value})
