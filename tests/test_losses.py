"""Losses against their formulas in float64, by loops or by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from iadjax import losses


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.random((3, 16, 24, 2))
    return x, np.clip(x + 0.1 * rng.normal(size=x.shape), 0.01, 1)


def single(arrays):
    return [array.astype(np.float32) for array in arrays]


def close(value, truth, rtol=2e-5):
    assert value.shape == truth.shape == (3,)
    np.testing.assert_allclose(np.asarray(value, np.float64), truth, rtol=rtol)


def test_mean_leaves_padded_rows_out():
    assert losses.mean(jnp.array([1.0, 2.0, np.nan]), jnp.array([True, True, False])) == 1.5


def test_mse(pair):
    x, y = pair
    close(losses.mse(*single(pair)), np.array([np.mean((a - b) ** 2) for a, b in zip(x, y, strict=True)]))


def test_ssim_by_gaussian_filter(pair):
    x, y = pair

    def local(image):
        # zeros outside, a radius of 5: window 11
        return np.stack(
            [ndimage.gaussian_filter(image[..., c], 1.5, mode="constant", radius=5) for c in range(image.shape[-1])], -1
        )

    truth = []
    for a, b in zip(x, y, strict=True):
        ma, mb = local(a), local(b)
        va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
        c1, c2 = 1e-4, 9e-4
        truth.append(1 - np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))
    close(losses.ssim(*single(pair)), np.array(truth), rtol=2e-4)


def test_gms_by_prewitt(pair):
    x, y = pair

    def gradient(image):
        dx, dy = (ndimage.prewitt(image, axis, mode="constant") / 3 for axis in (0, 1))
        return np.sqrt(dx**2 + dy**2)

    truth = []
    for a, b in zip(x.mean(-1), y.mean(-1), strict=True):
        value = 0.0
        for scale in range(3):
            if scale:
                a, b = (each.reshape(each.shape[0] // 2, 2, each.shape[1] // 2, 2).mean((1, 3)) for each in (a, b))
            ga, gb = gradient(a), gradient(b)
            value += np.mean(1 - (2 * ga * gb + 0.0026) / (ga**2 + gb**2 + 0.0026)) / 3
        truth.append(value)
    close(losses.gms(*single(pair), scales=3), np.array(truth), rtol=1e-4)
    flat = jnp.ones((1, 16, 16, 3))
    assert np.all(np.isfinite(jax.grad(lambda image: losses.gms(image, flat).sum())(flat)))


def test_cosine_distance_flat_and_by_position(pair):
    x, y = pair

    def distance(a, b):
        return 1 - np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))

    close(
        losses.cosine_distance(*single(pair)),
        np.array([distance(a.ravel(), b.ravel()) for a, b in zip(x, y, strict=True)]),
        1e-4,
    )
    rows = [
        np.mean([distance(u, v) for u, v in zip(a.reshape(-1, 2), b.reshape(-1, 2), strict=True)])
        for a, b in zip(x, y, strict=True)
    ]
    close(losses.cosine_distance(*single(pair), flatten=False), np.array(rows), 1e-4)


def test_normalized_l2(pair):
    x, y = pair

    def unit(a):
        return a / np.linalg.norm(a, axis=-1, keepdims=True)

    truth = [0.5 * np.mean(np.sum((unit(a) - unit(b)) ** 2, -1)) for a, b in zip(x, y, strict=True)]
    close(losses.normalized_l2(*single(pair)), np.array(truth), 1e-4)
    assert np.all(np.isfinite(jax.grad(lambda a: losses.normalized_l2(a, jnp.ones_like(a)).sum())(jnp.zeros((1, 2, 2, 3)))))


def test_focal(pair):
    logits = 4 * pair[0] - 2
    mask = (pair[1][..., 0] > 0.7).astype(np.int32)
    truth = []
    for rows, labels in zip(logits, mask, strict=True):
        total = 0.0
        for logit, label in zip(rows.reshape(-1, 2), labels.ravel(), strict=True):
            p = np.exp(logit) / np.exp(logit).sum()
            pt = p[label] * (1 - 1e-5) + p[1 - label] * 1e-5 + 1e-5
            total -= (1 - pt) ** 2 * np.log(pt)
        truth.append(total / labels.size)
    close(losses.focal(logits.astype(np.float32), mask), np.array(truth))


def test_truncated_l1_by_hand():
    # normal: 0.5 - D while D < 0.5; anomalous: 0.5 + D while D > -0.5
    score = jnp.array([[0.7, 0.1], [-0.7, -0.1], [0.2, -0.9]])
    label = jnp.array([[0, 0], [1, 1], [1, 0]])
    np.testing.assert_allclose(losses.truncated_l1(score, label), [0.2, 0.2, (0.7 + 1.4) / 2], rtol=1e-6)


def test_deviation_by_hand():
    reference = jnp.array([-1.0, 0.0, 1.0])
    score, label = jnp.array([-2.0, 3.0, 7.0]), jnp.array([0, 1, 1])
    np.testing.assert_allclose(losses.deviation(score, label, reference), [2.0, 2.0, 0.0], rtol=1e-6)


def test_normal_nll_is_that_of_scipy(pair):
    from scipy.stats import norm

    z = [pair[0], pair[1][:, :4]]
    log_det = [np.array([0.5, -1.0, 2.0]), np.array([0.1, 0.2, 0.3])]
    count = sum(each[0].size for each in z)
    likelihood = sum(norm.logpdf(each).reshape(3, -1).sum(1) + log for each, log in zip(z, log_det, strict=True))
    close(losses.normal_nll(single(z), single(log_det)) + 0.5 * count * np.log(2 * np.pi), -likelihood)


def test_weigh_gradient_is_the_identity_with_another_gradient():
    x, weight = jnp.array([[1.0, -2.0], [3.0, 4.0]]), jnp.array([[0.5], [3.0]])
    np.testing.assert_array_equal(losses.weigh_gradient(x, weight), x)
    of_x, of_weight = jax.grad(lambda x, weight: jnp.sum(losses.weigh_gradient(x, weight) ** 2), argnums=(0, 1))(x, weight)
    np.testing.assert_allclose(of_x, [[1.0, -2.0], [18.0, 24.0]])
    np.testing.assert_array_equal(of_weight, jnp.zeros_like(weight))
