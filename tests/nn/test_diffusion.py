"""Diffusion steps against their formulas in float64; tests/parity has the authors' numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.errors import UserError
from iadjax.nn import diffusion

RNG = np.random.default_rng(0)
X, EPSILON, NOISE = RNG.standard_normal((3, 2, 4, 4, 3)).astype(np.float32)
SCHEDULE = diffusion.noise_schedule(50)


def test_the_schedules_are_those_of_the_papers():
    beta = np.linspace(1e-4, 2e-2, 50) * 20
    np.testing.assert_allclose(SCHEDULE.beta, beta)
    np.testing.assert_allclose(SCHEDULE.alpha_bar, np.exp(np.cumsum(np.log1p(-beta))))
    cosine = diffusion.noise_schedule(50, "cosine")
    f = np.cos((np.arange(51) / 50 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine.alpha_bar[:-1], (f / f[0])[1:-1], rtol=1e-9)
    assert cosine.beta[-1] == 0.999
    with pytest.raises(UserError, match="there is no noise schedule 'quadratic'; it is one of linear, cosine"):
        diffusion.noise_schedule(50, "quadratic")


@pytest.mark.parametrize(("times", "number", "chosen"), [(1000, 3, [0, 500, 999]), (10, 10, range(10)), (7, 1, [0])])
def test_times_are_spread_from_the_first_to_the_last(times, number, chosen):
    assert diffusion.respaced(times, number).tolist() == list(chosen)


def test_the_start_is_found_again_from_the_noise():
    t = jnp.asarray([3, 41])
    x_t = diffusion.noised(SCHEDULE, X, t, EPSILON)
    a = SCHEDULE.alpha_bar[[3, 41]][:, None, None, None]
    np.testing.assert_allclose(x_t, np.sqrt(a) * X + np.sqrt(1 - a) * EPSILON, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diffusion.start_from_noise(SCHEDULE, x_t, t, EPSILON), X, rtol=1e-3, atol=1e-4)


def test_one_step_has_the_moments_of_the_posterior():
    """The product of the densities of x_{t-1} given x_0 and of x_t given x_{t-1} is a Gaussian with these moments."""
    t = 20
    beta, before = SCHEDULE.beta[t], SCHEDULE.alpha_bar[t - 1]
    variance = 1 / (1 / (1 - before) + (1 - beta) / beta)
    mean = variance * (np.sqrt(before) / (1 - before) * X + np.sqrt(1 - beta) / beta * NOISE)
    np.testing.assert_allclose(SCHEDULE.variance[t], variance)
    found = diffusion.posterior_mean(SCHEDULE, jnp.asarray(X), jnp.asarray(NOISE), jnp.int32(t))
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-5)


def test_a_step_of_ddpm_clips_and_adds_noise_but_for_the_last():
    t = jnp.int32(20)
    start = np.clip(np.asarray(diffusion.start_from_noise(SCHEDULE, X, t, EPSILON)), -1, 1)
    assert np.abs(start).max() == 1
    mean = np.asarray(diffusion.posterior_mean(SCHEDULE, start, X, t))
    found = diffusion.ancestral_step(SCHEDULE, X, t, EPSILON, NOISE)
    np.testing.assert_allclose(found, mean + np.sqrt(SCHEDULE.beta[20]) * NOISE, rtol=1e-5, atol=1e-6)
    last = [diffusion.ancestral_step(SCHEDULE, X, jnp.int32(0), EPSILON, noise) for noise in (NOISE, 0 * NOISE)]
    np.testing.assert_array_equal(*last)


def test_ddim_is_exact_where_the_noise_is_known():
    """Without new noise a step moves along the line of one image and one noise, forwards and backwards."""
    now, then = SCHEDULE.alpha_bar[[30, 10]]
    x = np.sqrt(now) * X + np.sqrt(1 - now) * EPSILON
    (row,), (back,) = (diffusion.ddim_coefficients([a], [b]) for a, b in ((now, then), (then, now)))
    moved = np.asarray(diffusion.ddim_step(row, x, EPSILON))
    np.testing.assert_allclose(moved, np.sqrt(then) * X + np.sqrt(1 - then) * EPSILON, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diffusion.ddim_step(back, moved, EPSILON), x, rtol=1e-5, atol=1e-6)
    # to pure noise
    (end,) = diffusion.ddim_coefficients([then], [0.0])
    np.testing.assert_allclose(diffusion.ddim_step(end, moved, EPSILON), EPSILON, rtol=1e-6)


def test_ddim_with_eta_1_is_ddpms_posterior():
    t = 20
    ((of_x, of_predicted, sigma),) = diffusion.ddim_coefficients(SCHEDULE.alpha_bar[[t]], SCHEDULE.alpha_bar[[t - 1]], 1.0)
    np.testing.assert_allclose(sigma**2, SCHEDULE.variance[t])
    start = np.asarray(diffusion.start_from_noise(SCHEDULE, X, jnp.int32(t), EPSILON))
    mean = diffusion.posterior_mean(SCHEDULE, start, X, jnp.int32(t))
    np.testing.assert_allclose(of_x * X + of_predicted * EPSILON, mean, rtol=1e-4, atol=1e-5)


def test_guidance_moves_the_noise_away_from_the_target():
    t = jnp.int32(30)
    target = diffusion.noised(SCHEDULE, NOISE, t, EPSILON)
    found = diffusion.guided_noise(SCHEDULE, X, t, EPSILON, target, 2.0)
    truth = EPSILON - np.sqrt(1 - SCHEDULE.alpha_bar[30]) * 2 * (np.asarray(target) - X)
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    before, after = (
        np.abs(np.asarray(diffusion.start_from_noise(SCHEDULE, X, t, each)) - NOISE).mean() for each in (EPSILON, found)
    )
    assert after < before
