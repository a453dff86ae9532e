"""Losses against their formulas in float64, by loops or by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    close(jax.jit(losses.gms, static_argnums=2)(*single(pair), 3), np.array(truth), rtol=1e-4)
    flat = jnp.ones((1, 16, 16, 3))
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda image: losses.gms(image, flat, 2).sum()))(flat)))


def test_gms_of_smoothed_images_without_a_border(pair):
    """A median of 3 x 3, mirrored at the border, comes first, and gradients are taken inside the image alone."""

    def gradient(image):
        image = ndimage.median_filter(image, 3, mode="mirror")
        dx, dy = (ndimage.prewitt(image, axis)[1:-1, 1:-1] / 3 for axis in (0, 1))
        return np.sqrt(dx**2 + dy**2)

    truth = []
    for a, b in zip(*(each.mean(-1) for each in pair), strict=True):
        ga, gb = gradient(a), gradient(b)
        truth.append(np.mean(1 - (2 * ga * gb + 0.0026) / (ga**2 + gb**2 + 0.0026)))
    close(jax.jit(lambda x, y: losses.gms(x, y, 1, median=True, pad=False))(*single(pair)), np.array(truth), rtol=1e-4)


def test_the_gradient_of_smoothed_images_is_that_of_small_differences(pair):
    """Also where pixels of a window are equal: a step that is the same for all of them."""
    x, y = (each.mean(-1)[:1] for each in pair)
    # a flat patch, which no median leaves but its border
    y[0, 4:9, 4:9] = 0.5

    def loss(image):
        a, b = (ndimage.median_filter(each, 3, mode="mirror") for each in (x[0], image))
        a, b = (np.sqrt(sum((ndimage.prewitt(each, axis)[1:-1, 1:-1] / 3) ** 2 for axis in (0, 1)) + 1e-12) for each in (a, b))
        return np.mean(1 - (2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026))

    def ours(image):
        return losses.gms(single([x])[0][..., None], image, 1, median=True, pad=False).sum()

    found = np.asarray(jax.jit(jax.grad(ours))(single([y])[0][..., None]), np.float64)[0, ..., 0]
    steps = {"one": np.zeros(y.shape[1:]), "flat": np.zeros(y.shape[1:]), "corner": np.zeros(y.shape[1:])}
    steps["one"][12, 15], steps["corner"][0, 0], steps["flat"][4:9, 4:9] = 1, 1, 1
    for name, step in steps.items():
        truth = (loss(y[0] + 1e-6 * step) - loss(y[0] - 1e-6 * step)) / 2e-6
        assert np.sum(found * step) == pytest.approx(truth, rel=1e-3, abs=1e-7), name
    assert np.count_nonzero(found[4:9, 4:9]) > 4


def test_ms_ssim_by_gaussian_filter(pair):
    def local(image):
        return ndimage.gaussian_filter(image, 1.5, mode="constant", radius=5)

    weights, truth = (0.3, 0.7), []
    for images in zip(*pair, strict=True):
        channels = []
        for a, b in zip(*(np.moveaxis(image, -1, 0) for image in images), strict=True):
            product = 1.0
            for scale, weight in enumerate(weights):
                if scale:
                    a, b = (each.reshape(each.shape[0] // 2, 2, each.shape[1] // 2, 2).mean((1, 3)) for each in (a, b))
                ma, mb = local(a), local(b)
                va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
                similarity = (2 * cov + 9e-4) / (va + vb + 9e-4)
                if scale:
                    similarity *= (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
                product *= similarity.mean() ** weight
            channels.append(product)
        truth.append(1 - np.mean(channels))
    close(jax.jit(lambda x, y: losses.ms_ssim(x, y, weights))(*single(pair)), np.array(truth), rtol=2e-4)
    # an image against its negative: contrast and structure are negative
    x = jnp.asarray(pair[0], jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda y: losses.ms_ssim(x, y, weights).sum()))(1 - x)
    assert value <= 3 and np.all(np.isfinite(gradient))


def test_pseudo_huber_also_near_zero():
    x = np.array([0.0, 1e-6, -0.5, 3.0, -1e3])
    truth = np.array([0, 0.5e-12, np.sqrt(1.25) - 1, np.sqrt(10) - 1, np.sqrt(1e6 + 1) - 1])
    np.testing.assert_allclose(losses.pseudo_huber(jnp.asarray(x, jnp.float32)), truth, rtol=1e-6)


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


def test_the_adversarial_hinge_is_a_truncated_l1_and_a_generator_has_the_mean():
    """Lim & Ye, 2017: max(0, 1 - D(real)) + max(0, 1 + D(fake))."""
    score = np.random.default_rng(0).normal(size=(6,)).astype(np.float32)
    label = np.array([0, 0, 0, 1, 1, 1])
    truth = [*np.maximum(0, 1 - score[:3]), *np.maximum(0, 1 + score[3:])]
    np.testing.assert_allclose(losses.truncated_l1(score, label, th=1.0), truth, rtol=1e-6)
    np.testing.assert_allclose(optax.losses.hinge_loss(score, 1 - 2.0 * label), truth, rtol=1e-6)


def test_svdd_and_its_soft_boundary(pair):
    x, centre = pair[0], np.array([0.2, 0.7])
    distance = np.array([np.mean([np.sum((v - centre) ** 2) for v in image.reshape(-1, 2)]) for image in x])
    close(losses.svdd(x.astype(np.float32), jnp.asarray(centre, jnp.float32)), distance)
    radius = float(np.sqrt(np.median(distance)))
    value = losses.soft_boundary(jnp.asarray(distance, jnp.float32), jnp.float32(radius), 0.25)
    close(value, np.array([radius**2 + 4 * max(0.0, each - radius**2) for each in distance]), 1e-4)
    # at the optimum the fraction of images outside is at most nu (proposition 4): the gradient by R^2 is 1 - outside / nu
    ten = jnp.arange(1.0, 11.0)
    slope = jax.grad(lambda radius: jnp.mean(losses.soft_boundary(ten, radius, 0.2)))
    assert slope(jnp.sqrt(7.5)) < 0 < slope(jnp.sqrt(9.5))


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


def test_kl_and_the_bound_by_integration():
    """KL(q | p) = the integral of q log(q / p), by the trapezoid rule."""
    from scipy.stats import norm

    mean, log_variance = np.array([[0.3, -1.2], [0.0, 0.0], [2.0, 0.5]]), np.array([[0.4, -0.7], [0.0, 0.0], [-2.0, 1.0]])
    grid = np.linspace(-30, 30, 60001)
    truth = np.zeros(3)
    for row, column in np.ndindex(mean.shape):
        q = norm(mean[row, column], np.exp(log_variance[row, column] / 2))
        truth[row] += np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - norm.logpdf(grid)), grid)
    found = losses.kl_normal(*single((mean, log_variance)))
    np.testing.assert_allclose(found, truth, atol=1e-5)
    x, restored = (np.random.default_rng(i).random((3, 2, 2, 3)) for i in (0, 1))
    bound = losses.negative_elbo(*single((x, restored, mean, log_variance)), beta=2.0)
    likelihood = norm.logpdf(x, restored, 1).reshape(3, -1).sum(1) + 6 * np.log(2 * np.pi)
    np.testing.assert_allclose(bound, -likelihood + 2 * truth, rtol=1e-5)


def test_gradient_penalty_of_a_critic_with_a_known_gradient():
    """D(x) = w x + |x|^2 / 2 has the gradient w + x."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 3, 4, 4, 2))
    weight, mixing = rng.normal(size=(4, 4, 2)), rng.random(3)

    def critic(x):
        flat = x.reshape(len(x), -1)
        return flat @ jnp.asarray(weight.ravel(), x.dtype) + 0.5 * jnp.sum(flat**2, axis=1)

    mixed = mixing[:, None, None, None] * real + (1 - mixing[:, None, None, None]) * fake
    truth = (np.linalg.norm((weight + mixed).reshape(3, -1), axis=1) - 1) ** 2
    close(losses.gradient_penalty(critic, *single((real, fake, mixing))), truth)
    flat = jax.grad(lambda w: losses.gradient_penalty(lambda x: w * x.sum((1, 2, 3)), *single((real, fake, mixing))).sum())
    assert np.isfinite(flat(jnp.float32(0.0)))


def test_contrastive_losses_of_optax():
    """NT-Xent (Chen et al., ICML 2020, eq. 1) and the triplet loss (Balntas et al., BMVC 2016)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pair_of, temperature, total = [1, 0, 3, 2, 5, 4], 0.5, 0.0
    for i, j in enumerate(pair_of):
        similarity = unit @ unit[i] / temperature
        total -= similarity[j] - np.log(sum(np.exp(similarity[k]) for k in range(6) if k != i))
    # Optax mixes booleans with integers there
    with jax.numpy_dtype_promotion("standard"):
        found = optax.losses.ntxent(x.astype(np.float32), jnp.array([0, 0, 1, 1, 2, 2]), temperature)
    np.testing.assert_allclose(found, total / 6, rtol=1e-5)
    a, p, n = x[:2], x[2:4], x[4:]
    truth = np.maximum(0, np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 1)
    np.testing.assert_allclose(optax.losses.triplet_margin_loss(*single((a, p, n))), truth, rtol=1e-4)


def test_focal_of_one_logit_is_optax_and_that_of_two_with_class_weights(pair):
    """Lin et al., ICCV 2017, eq. 5: -alpha_t (1 - p_t)^gamma log p_t, p_t of one logit by the sigmoid."""
    logit, mask = 4 * pair[0][..., 0] - 2, (pair[1][..., 0] > 0.7).astype(np.float64)
    p = 1 / (1 + np.exp(-logit))
    right = np.where(mask == 1, p, 1 - p)
    truth = -np.where(mask == 1, 0.25, 0.75) * (1 - right) ** 2 * np.log(right)
    found = optax.losses.sigmoid_focal_loss(*single((logit, mask)), alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(found, truth, rtol=2e-4, atol=1e-6)
    # the softmax of (0, x) is the sigmoid of x
    two = losses.focal(np.stack([0 * logit, logit], -1).astype(np.float32), mask.astype(np.int32), smoothing=1e-7)
    np.testing.assert_allclose(two, np.mean(-((1 - right) ** 2) * np.log(right), axis=(1, 2)), rtol=1e-4)


def test_dice_by_counting():
    x = jnp.array([[[0.5, 1.0], [0.0, 0.25]]])
    target = jnp.array([[[1, 1], [0, 0]]])
    np.testing.assert_allclose(losses.dice(x, target), [1 - (2 * 1.5 + 1) / (1.75 + 2 + 1)], rtol=1e-6)


def test_weigh_gradient_is_the_identity_with_another_gradient():
    x, weight = jnp.array([[1.0, -2.0], [3.0, 4.0]]), jnp.array([[0.5], [3.0]])
    np.testing.assert_array_equal(losses.weigh_gradient(x, weight), x)
    of_x, of_weight = jax.grad(lambda x, weight: jnp.sum(losses.weigh_gradient(x, weight) ** 2), argnums=(0, 1))(x, weight)
    np.testing.assert_allclose(of_x, [[1.0, -2.0], [18.0, 24.0]])
    np.testing.assert_array_equal(of_weight, jnp.zeros_like(weight))
