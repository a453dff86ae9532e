"""Ops against NumPy in float64, SciPy, scikit-learn and PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from iadjax import ops
from iadjax.errors import UserError
from iadjax.ops import coreset
from iadjax.ops.neighbors.reference import reference
from iadjax.synthesis.rotation import rotate_nearest


def rng(seed=0):
    return np.random.default_rng(seed)


def feature_like(size, depth, seed=0):
    """Clusters with a decaying spectrum behind a rectifier, as patch features are."""
    generator = rng(seed)
    spectrum = 1 / np.sqrt(1 + np.arange(depth))
    centers = generator.standard_normal((40, depth)) * spectrum
    points = centers[generator.integers(0, 40, size)] + 0.5 * generator.standard_normal((size, depth)) * spectrum
    rotation = np.linalg.qr(generator.standard_normal((depth, depth)))[0]
    return np.maximum(points @ rotation, 0).astype(np.float32)


class TestNearestNeighbors:
    def test_the_reference_is_scipy(self):
        queries, bank = rng(0).standard_normal((30, 5)), rng(1).standard_normal((40, 5))
        distances, indices = reference(queries, bank, 4)
        np.testing.assert_allclose(distances, np.sort(cdist(queries, bank), axis=1)[:, :4], rtol=1e-12)
        np.testing.assert_array_equal(indices, np.argsort(cdist(queries, bank), axis=1)[:, :4])

    @pytest.mark.parametrize("k", [1, 3, 9])
    @pytest.mark.parametrize("shape", [(5, 9), (130, 300), (2100, 257), (70, 3001)])
    def test_against_float64(self, k, shape):
        queries, bank = (rng(i).standard_normal((size, 24)).astype(np.float32) for i, size in enumerate(shape))
        truth, order = reference(queries, bank, k)
        # the smallest forces many tiles, of which the last overlaps its neighbour
        for budget in (ops.BYTE_BUDGET, 2**20, 1):
            found = jax.jit(lambda q, b, budget=budget: ops.nearest_neighbors(q, b, k, byte_budget=budget))
            distances, indices = found(queries, bank)
            assert distances.dtype == jnp.float32 and indices.dtype == jnp.int32
            np.testing.assert_array_equal(indices, order)
            np.testing.assert_allclose(distances, truth, rtol=1e-5)

    @pytest.mark.parametrize("k", [1, 2])
    def test_a_query_that_is_in_the_bank(self, k):
        # a large common offset is what cancels in |q|^2 + |b|^2 - 2 q.b
        bank = (100 + rng().standard_normal((1000, 64))).astype(np.float32)
        distances, indices = ops.nearest_neighbors(bank[:200], bank, k)
        norms = np.linalg.norm(bank[:200], axis=1)
        assert np.all(np.asarray(distances)[:, 0] < 1e-3 * norms)
        assert np.mean(np.asarray(indices)[:, 0] == np.arange(200)) == 1.0

    def test_ties_take_the_lower_index(self):
        bank = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
        for k, expected in ((1, [3]), (3, [3, 4, 5])):
            _, indices = ops.nearest_neighbors(bank[3:4], bank, k)
            np.testing.assert_array_equal(indices[0], expected)

    @pytest.mark.parametrize("k", [1, 5, 12])
    def test_ties_in_a_large_bank(self, k):
        # distances of whole numbers, most of which many rows share
        bank = rng().integers(0, 2, (1500, 12)).astype(np.float32)
        queries = rng(1).integers(0, 2, (40, 12)).astype(np.float32)
        _, order = reference(queries, bank, k)
        for budget in (ops.BYTE_BUDGET, 1):
            np.testing.assert_array_equal(ops.nearest_neighbors(queries, bank, k, byte_budget=budget)[1], order)

    def test_rows_far_away_are_not_found(self):
        bank = np.full((1000, 6), ops.FAR, np.float32)
        bank[::200] = rng().standard_normal((5, 6))
        for budget in (ops.BYTE_BUDGET, 1):
            distances, indices = ops.nearest_neighbors(bank[::200], bank, 5, byte_budget=budget)
            assert np.all(np.isfinite(distances))
            np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(0, 1000, 200), (5, 1)))

    def test_the_distance_matrix_never_exists(self):
        queries, bank = jnp.zeros((4096, 8)), jnp.zeros((65536, 8))
        budget = 8 * 2**20
        compiled = jax.jit(lambda q, b: ops.nearest_neighbors(q, b, 3, byte_budget=budget)).lower(queries, bank).compile()
        whole = 4 * 4096 * 65536
        assert compiled.memory_analysis().temp_size_in_bytes < 2 * budget < whole / 32

    def test_refuses(self):
        with pytest.raises(UserError, match="k must be from 1 to the 3 rows"):
            ops.nearest_neighbors(jnp.zeros((2, 4)), jnp.zeros((3, 4)), 4)
        with pytest.raises(UserError, match="must have one D"):
            ops.nearest_neighbors(jnp.zeros((2, 4)), jnp.zeros((3, 5)))


def greedy(features, number, start=0):
    """The definition, one pick at a time, in float64."""
    features = np.asarray(features, np.float64)
    distance = np.full(len(features), np.inf)
    picks = [start]
    for _ in range(number - 1):
        distance = np.minimum(distance, ((features - features[picks[-1]]) ** 2).sum(1))
        distance[picks] = -1
        picks.append(int(np.argmax(distance)))
    return picks


class TestKCenterGreedy:
    @pytest.mark.parametrize("candidates", [4, 64, 512])
    def test_same_picks_as_the_loop(self, candidates):
        features = feature_like(3000, 32)
        picks = np.asarray(ops.k_center_greedy(features, 400, 17, candidates=candidates))
        assert np.mean(picks == greedy(features, 400, 17)) >= 0.99
        assert len(set(picks.tolist())) == 400

    def test_all_picks_in_float64(self):
        features = rng().standard_normal((1500, 16))
        with jax.enable_x64(True):
            picks = ops.k_center_greedy(jnp.asarray(features), 300, candidates=64)
        np.testing.assert_array_equal(picks, greedy(features, 300))

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("candidates", [2, 7, 512])
    def test_ties_and_duplicates(self, seed, candidates):
        # integers: every distance is exact, and most are equal to others
        features = rng(seed).integers(0, 3, (120, 3)).astype(np.float32)
        start = int(rng(seed).integers(120))
        picks = ops.k_center_greedy(features, 120, start, candidates=candidates)
        np.testing.assert_array_equal(picks, greedy(features, 120, start))

    def test_accelerators_take_one_program_for_every_group(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        features = rng().integers(0, 3, (120, 3)).astype(np.float32)
        before = coreset._update._cache_size()
        np.testing.assert_array_equal(ops.k_center_greedy(features, 120, candidates=100), greedy(features, 120))
        assert coreset._update._cache_size() == before + 1

    def test_real_valued_duplicates_are_picked_last_and_once(self):
        features = np.repeat(rng().standard_normal((30, 8)), 4, axis=0).astype(np.float32)
        picks = np.asarray(ops.k_center_greedy(features, 120))
        assert sorted(picks) == list(range(120)) and len(set(picks[:30] // 4)) == 30

    def test_covering_radius_is_within_twice_the_best(self):
        # five tight clusters: the best five centres cover within 0.1
        centers = 10 * np.eye(5)
        features = (np.repeat(centers, 50, axis=0) + 0.05 * rng().uniform(-1, 1, (250, 5)) / np.sqrt(5)).astype(np.float32)
        picks = ops.k_center_greedy(features, 5)
        assert cdist(features, features[np.asarray(picks)]).min(1).max() <= 0.2

    def test_progress_and_refusals(self):
        calls = []
        ops.k_center_greedy(feature_like(200, 8), 50, candidates=16, progress=lambda *done: calls.append(done))
        assert calls[-1] == (50, 50) and calls == sorted(calls)
        for arguments, message in (((0,), "num_centers"), ((6,), "num_centers"), ((2, 5), "start"), ((2, -1), "start")):
            with pytest.raises(UserError, match=message):
                ops.k_center_greedy(jnp.zeros((5, 2)), *arguments)


class TestRandomProjection:
    def test_dimension_is_scikit_learns(self):
        for size in (100, 20_000, 163_856):
            for eps in (0.3, 0.9):
                assert ops.johnson_lindenstrauss_dimension(size, eps) == johnson_lindenstrauss_min_dim(size, eps=eps)

    def test_distances_are_kept(self):
        features = rng().standard_normal((300, 2000)).astype(np.float32)
        projected = ops.sparse_random_projection(jax.random.key(0), features, 0.5)
        assert projected.shape == (300, ops.johnson_lindenstrauss_dimension(300, 0.5))
        ratio = (
            cdist(projected, projected)[~np.eye(300, dtype=bool)] ** 2
            / cdist(features, features)[~np.eye(300, dtype=bool)] ** 2
        )
        assert abs(ratio.mean() - 1) < 0.02 and ratio.min() > 0.5 and ratio.max() < 1.5

    def test_narrow_features_stay_as_they_are(self):
        features = jnp.ones((1000, 30))
        assert ops.sparse_random_projection(jax.random.key(0), features) is features


class TestResample:
    @pytest.mark.parametrize("shape", [(40, 50), (12, 5), (1, 9)])
    @pytest.mark.parametrize("sigma", [0.7, 4.0])
    def test_blur_is_scipys(self, shape, sigma):
        maps = rng().standard_normal((2, *shape))
        truth = np.stack([ndimage.gaussian_filter(each, sigma, mode="reflect", truncate=4.0) for each in maps])
        np.testing.assert_allclose(ops.gaussian_blur(jnp.asarray(maps, jnp.float32), sigma), truth, atol=1e-5)

    @pytest.mark.parametrize("shape", [(40, 50), (12, 5), (2, 9), (1, 9)])
    @pytest.mark.parametrize(("sigma", "taps"), [(4.0, 3), (1.0, 5), (4.0, 33)])
    def test_kernel_blur_is_scipys_with_the_edge_once(self, shape, sigma, taps):
        maps = rng().standard_normal((2, *shape))
        kernel = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / sigma) ** 2)
        truth = maps
        for axis in (1, 2):
            truth = ndimage.correlate1d(truth, kernel / kernel.sum(), axis, mode="mirror")
        np.testing.assert_allclose(ops.kernel_blur(jnp.asarray(maps, jnp.float32), sigma, taps), truth, atol=1e-5)
        truth = ndimage.gaussian_filter(maps, (0, sigma, sigma), mode="constant", truncate=(taps // 2) / sigma)
        np.testing.assert_allclose(ops.kernel_blur(jnp.asarray(maps, jnp.float32), sigma, taps, "zeros"), truth, atol=1e-5)

    @pytest.mark.parametrize("size", [(7, 9), (32, 20), (5, 31), (1, 1)])
    @pytest.mark.parametrize("antialias", [False, True])
    def test_resize_is_pytorchs(self, size, antialias):
        torch = pytest.importorskip("torch")
        image = rng().standard_normal((2, 13, 17, 3)).astype(np.float32)
        planes = torch.tensor(image).permute(0, 3, 1, 2)
        truth = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=antialias)
        np.testing.assert_allclose(ops.resize(image, size, antialias=antialias), truth.permute(0, 2, 3, 1), atol=1e-5)

    def test_resize_with_aligned_corners(self):
        torch = pytest.importorskip("torch")
        image = rng().standard_normal((1, 8, 6, 2)).astype(np.float32)
        planes = torch.tensor(image).permute(0, 3, 1, 2)
        truth = torch.nn.functional.interpolate(planes, (15, 4), mode="bilinear", align_corners=True)
        np.testing.assert_allclose(ops.resize(image, (15, 4), align_corners=True), truth.permute(0, 2, 3, 1), atol=1e-5)
        with pytest.raises(UserError, match="both antialias and align_corners"):
            ops.resize(image, (4, 4), antialias=True, align_corners=True)

    def test_resize_by_hand(self):
        # [0, 1] to four pixels: centres at -.25 (clamped to 0), .25, .75, 1.25 (clamped to 1)
        row = jnp.array([0.0, 1.0])[None, None, :, None]
        np.testing.assert_allclose(ops.resize(row, (1, 4))[0, 0, :, 0], [0, 0.25, 0.75, 1])
        np.testing.assert_allclose(ops.resize(row, (1, 3), align_corners=True)[0, 0, :, 0], [0, 0.5, 1])

    def test_antialiased_resize_is_pils(self):
        from PIL import Image

        plane = rng().random((37, 53)).astype(np.float32)
        truth = np.asarray(Image.fromarray(plane).resize((16, 11), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(ops.resize(plane[None, ..., None], (11, 16), antialias=True)[0, ..., 0], truth, atol=1e-5)


class TestPatches:
    @pytest.mark.parametrize("window", [1, 3, 5])
    def test_average_pool(self, window):
        features = rng().standard_normal((2, 6, 7, 3))
        truth = ndimage.uniform_filter(features, (1, window, window, 1), mode="constant")
        np.testing.assert_allclose(ops.average_pool(jnp.asarray(features, jnp.float32), window), truth, atol=1e-5)
        torch = pytest.importorskip("torch")
        planes = torch.tensor(features).permute(0, 3, 1, 2)
        theirs = torch.nn.functional.avg_pool2d(planes, window, 1, window // 2).permute(0, 2, 3, 1)
        np.testing.assert_allclose(truth, theirs, atol=1e-12)

    def test_unfold_is_pytorchs(self):
        torch = pytest.importorskip("torch")
        features = rng().standard_normal((2, 5, 4, 3)).astype(np.float32)
        planes = torch.tensor(features).permute(0, 3, 1, 2)
        theirs = torch.nn.functional.unfold(planes, 3, padding=1).permute(0, 2, 1).reshape(2, 5, 4, 27)
        np.testing.assert_array_equal(ops.unfold(jnp.asarray(features)), theirs)

    @pytest.mark.parametrize(("length", "size"), [(10, 5), (4608, 1024), (7, 3), (3, 7)])
    def test_adaptive_pool(self, length, size):
        features = rng().standard_normal((2, length))
        bins = [(i * length // size, math.ceil((i + 1) * length / size)) for i in range(size)]
        truth = np.stack([features[:, begin:end].mean(1) for begin, end in bins], axis=1)
        np.testing.assert_allclose(ops.adaptive_average_pool_1d(jnp.asarray(features, jnp.float32), size), truth, atol=1e-5)
        torch = pytest.importorskip("torch")
        np.testing.assert_allclose(truth, torch.nn.functional.adaptive_avg_pool1d(torch.tensor(features), size), atol=1e-12)


class TestTiles:
    @pytest.mark.parametrize(("length", "tile", "overlap"), [(6, 4, 1), (20, 7, 2), (7, 7, 2), (31, 9, 1)])
    def test_every_token_comes_from_the_tile_whose_middle_is_nearest(self, length, tile, overlap):
        layout = ops.tile_layout(length, tile, overlap)
        kept = np.concatenate([start + np.arange(first, last) for start, first, last in layout])
        np.testing.assert_array_equal(kept, np.arange(length))
        starts = np.array([start for start, _, _ in layout])
        assert starts[0] == 0 and starts[-1] == length - tile and np.all(np.diff(starts) <= tile - 2 * overlap)
        for start, first, last in layout:
            middle = np.abs(start + np.arange(first, last)[:, None] - starts - (tile - 1) / 2)
            own = np.abs(np.arange(first, last) - (tile - 1) / 2)
            assert np.all(own <= middle.min(axis=1) + 1)

    def test_levels_without_context_are_those_of_the_whole_image(self):
        image = rng().random((2, 48, 64, 3)).astype(np.float32)
        levels = lambda x: (x[:, ::4, ::4], x[:, ::8, ::8] ** 2)  # noqa: E731
        for found, whole in zip(ops.stitched_levels(levels, image, 32, 8), levels(image), strict=True):
            np.testing.assert_array_equal(found, whole)


def test_block_means_leave_out_what_fills_no_window():
    x = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    means = ops.block_mean(x, 2)
    assert means.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(means[1, 1, 2], x[1, 2:4, 4:6].mean(axis=(0, 1)), rtol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0, 33.0, -140.0])
def test_rotations_are_those_of_pil(size, degrees):
    image = rng().random((2, *size, 3), np.float32)
    expected = np.stack([rotate_nearest(each, degrees) for each in image])
    found = np.asarray(ops.rotate(jnp.asarray(image), jnp.full((2,), degrees, jnp.float32)))
    # a pixel on the border between two may fall to either
    assert np.mean(np.any(found != expected, axis=-1)) < 0.01


def test_nearest_resize_is_pytorchs():
    torch = pytest.importorskip("torch")
    image = rng().random((2, 12, 9, 3), np.float32)
    for size in ((6, 3), (5, 7), (24, 20)):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(image).permute(0, 3, 1, 2), size=size)
        np.testing.assert_array_equal(ops.resize_nearest(jnp.asarray(image), size), theirs.permute(0, 2, 3, 1).numpy())


def test_adaptive_pooling_is_pytorchs():
    torch = pytest.importorskip("torch")
    features = rng().random((2, 12, 10, 3), np.float32)
    for size in ((6, 5), (5, 7), (12, 1)):
        theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(features).permute(0, 3, 1, 2), size)
        ours = ops.adaptive_average_pool(jnp.asarray(features), size)
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), rtol=1e-5)


def test_blocks_as_vectors_and_back():
    x = np.random.default_rng(0).random((2, 4, 6, 3), np.float32)
    vectors = ops.block_vectors(x, 2)
    np.testing.assert_array_equal(vectors[1, 0, 2], x[1, :2, 4:].reshape(-1))
    np.testing.assert_array_equal(ops.from_block_vectors(vectors, 2), x)
