"""Simplex noise on the device is that of the host."""

import jax
import numpy as np

from iadjax import ops
from iadjax.synthesis.simplex import simplex_noise


def test_the_device_has_the_noise_of_the_host():
    key, size, time = jax.random.key(3), (20, 12), 77
    found = jax.jit(lambda key, t: ops.simplex_field(key, size, t, 3, 0.8, 32.0))(key, time)
    assert found.shape == (*size, 3) and found.dtype == np.float32
    y, x = np.mgrid[:20, :12].astype(np.float64)
    for channel, own in enumerate(jax.random.split(key, 3)):
        table = np.asarray(jax.random.permutation(own, 256))
        scales = [32.0, 16.0, 8.0]
        noise = sum(0.8**i * simplex_noise(table, x / s, y / s, np.full_like(x, time / s)) for i, s in enumerate(scales))
        np.testing.assert_allclose(found[..., channel], noise, atol=2e-4)
    # each channel has noise of its own
    assert np.abs(np.corrcoef(np.asarray(found).reshape(-1, 3).T)[0, 1:]).max() < 0.9
