"""Simplex noise against OpenSimplex, and RD++'s rectangles."""

import numpy as np

from iadjax.synthesis.simplex import simplex_noise, simplex_octaves, simplex_patch
from tests.parity.harness import Card


def test_octaves_are_opensimplexs():
    card = Card("anoddpm")
    table = card.arrays["tensor/simplex_perm"]
    np.testing.assert_allclose(simplex_octaves(table, (32, 32), 3, 0.6).ravel(), card["out/simplex2"], atol=1e-6)
    y, x = np.mgrid[:32, :32].astype(np.float64)
    scales = [64 / 2**i for i in range(4)]
    noise = sum(0.8**i * simplex_noise(table, x / s, y / s, np.full_like(x, 5 / s)) for i, s in enumerate(scales))
    # the reference leaves out lattice points that hardly count
    np.testing.assert_allclose(noise.ravel(), card["out/simplex3_fixed_T"], atol=2e-4)


def test_the_volume_is_the_noise_at_its_points():
    table = np.random.default_rng(0).permutation(256)
    volume = simplex_octaves(table, (3, 5, 7), 2, 0.5, 8.0)
    z, y, x = 2.0, 3.0, 6.0
    at = [simplex_noise(table, np.array(x / s), np.array(y / s), np.array(z / s)) for s in (8.0, 4.0)]
    assert volume.shape == (3, 5, 7) and abs(volume[2, 3, 6] - at[0] - 0.5 * at[1]) < 1e-12
    # smooth: neighbours differ by much less than the range
    fine = simplex_octaves(table, (64, 64), 1, 1.0, 64.0)
    assert np.abs(np.diff(fine)).max() < 0.2 < np.ptp(fine) < 2


def test_a_patch_changes_one_rectangle():
    image = np.random.default_rng(1).random((256, 128, 3), np.float32)
    sides = []
    for seed in range(20):
        noised = simplex_patch(np.random.default_rng(seed), image)
        assert noised.dtype == np.float32 and 0.02 < np.abs(noised - image).max() < 0.7
        where = np.argwhere(np.any(noised != image, axis=-1))
        sides.append(where.max(0) - where.min(0) + 1)
        # inside, the colours have noise of their own
        row, column = where[len(where) // 2]
        assert np.ptp((noised - image)[row, column]) > 0
    sides = np.array(sides)
    assert sides[:, 0].min() >= 9 and sides[:, 0].max() <= 31 and sides[:, 1].max() <= 15
