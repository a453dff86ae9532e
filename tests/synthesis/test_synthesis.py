"""Synthetic anomalies against independent solutions and the ranges that the papers give."""

import jax
import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from iadjax.errors import UserError
from iadjax.synthesis.cutpaste import cutpaste, cutpaste_3way, cutpaste_scar
from iadjax.synthesis.feature_noise import gaussian_noise, jitter
from iadjax.synthesis.nsa import nsa
from iadjax.synthesis.poisson import poisson_blend


@pytest.fixture
def image():
    # every pixel of its own, so that a window is found where it was cut
    return np.random.default_rng(0).random((96, 80, 3), np.float32)


def solve(target, guide, mixed):
    """The five-point equations one by one, and a sparse solver."""
    height, width = target.shape
    number = {(i, j): n for n, (i, j) in enumerate((i, j) for i in range(1, height - 1) for j in range(1, width - 1))}
    rows, columns, values, right = [], [], [], np.zeros(len(number))
    for (i, j), n in number.items():
        rows, columns, values = [*rows, n], [*columns, n], [*values, 4.0]
        for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            difference, other = guide[i, j] - guide[p, q], target[i, j] - target[p, q]
            right[n] += other if mixed and abs(other) > abs(difference) else difference
            if (p, q) in number:
                rows, columns, values = [*rows, n], [*columns, number[p, q]], [*values, -1.0]
            else:
                right[n] += target[p, q]
    solution = target.copy()
    solution[1:-1, 1:-1] = spsolve(sparse.csr_matrix((values, (rows, columns))), right).reshape(height - 2, width - 2)
    return solution


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (7, 12), (20, 5)])
def test_blending_solves_the_poisson_equation(size, mixed):
    rng = np.random.default_rng(1)
    target, guide = rng.random((2, *size, 3))
    blended = poisson_blend(target, guide, mixed)
    for channel in range(3):
        truth = solve(target[..., channel], guide[..., channel], mixed)
        np.testing.assert_allclose(blended[..., channel], truth, atol=1e-12)


def test_a_source_that_is_brighter_everywhere_changes_nothing(image):
    np.testing.assert_allclose(poisson_blend(image, image + 0.3), image, atol=1e-6)


def test_cutpaste_pastes_a_window_of_the_image(image):
    pasted, mask = cutpaste(np.random.default_rng(3), image, jitter=0)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    height, width = len(rows), len(columns)
    assert mask.sum() == height * width and np.array_equal(pasted[mask == 0], image[mask == 0])
    patch = pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (height, width))
    found = np.argwhere((windows == patch[..., 0]).all((-2, -1)))
    assert len(found) == 1 and tuple(found[0]) != (rows[0], columns[0])
    top, left = found[0]
    assert np.array_equal(image[top : top + height, left : left + width], patch)


def test_cutpaste_has_the_paper_s_sizes(image):
    ratios = []
    for seed in range(300):
        _, mask = cutpaste(np.random.default_rng(seed), image, jitter=0)
        height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
        # sides are whole pixels
        assert 0.02 - 0.005 <= mask.mean() <= 0.15 + 0.01
        ratios.append(width / height)
    assert min(ratios) > 0.25 and max(ratios) < 4
    # half of them are wide
    assert abs(np.mean(np.array(ratios) > 1) - 0.5) < 0.09


def test_scar_has_the_paper_s_sizes(image):
    areas = []
    for seed in range(100):
        scarred, mask = cutpaste_scar(np.random.default_rng(seed), image)
        assert np.array_equal(scarred[mask == 0], image[mask == 0])
        assert np.hypot(mask.any(axis=0).sum(), mask.any(axis=1).sum()) <= np.hypot(25, 16) * np.sqrt(2) + 2
        areas.append(mask.sum())
    assert min(areas) >= 15 and max(areas) <= 25 * 16 * 1.2
    # 17.5 x 9 in the mean
    assert 120 < np.mean(areas) < 200


def test_patches_change_colour_by_no_more_than_the_jitter():
    grey = np.full((64, 64, 3), 0.5, np.float32)
    changed = [cutpaste(np.random.default_rng(seed), grey) for seed in range(50)]
    values = np.array([pasted[mask == 1].mean() for pasted, mask in changed])
    assert np.ptp(values) > 0.05
    # brightness times 1 +- 0.1; the contrast of a flat patch is nothing
    assert np.all(np.abs(values - 0.5) <= 0.05 + 2 / 255)


def test_three_way(image):
    classes = cutpaste_3way(np.random.default_rng(0), image)
    assert list(classes) == ["normal", "cutpaste", "scar"] and classes["normal"] is image
    assert all(not np.array_equal(classes[name], image) for name in ("cutpaste", "scar"))


@pytest.mark.parametrize("mixed", [False, True])
def test_nsa_labels_what_it_changed(image, mixed):
    other = np.random.default_rng(9).random((70, 100, 3), np.float32)
    shares = []
    for seed in range(20):
        changed, mask = nsa(np.random.default_rng(seed), image, other, mixed=mixed)
        assert changed.dtype == np.float32 and mask.dtype == np.uint8 and changed.min() >= 0 and changed.max() <= 1
        touched = np.any(changed != image, axis=-1)
        # the median filter rounds corners, fills gaps and takes back the seam
        near = ndimage.binary_dilation(touched, np.ones((5, 5)))
        assert np.all(near[mask == 1]) and mask.sum() > 0.5 * touched.sum()
        shares.append(mask.mean())
    # two half sides of 5 to 20 % each, at most 30 % larger, at most three patches
    assert min(shares) > 0.003 and max(shares) < 3 * (0.4 * 1.3) ** 2


def test_nsa_grades_its_labels(image):
    other = np.random.default_rng(9).random((96, 80, 3), np.float32)
    rng = np.random.default_rng
    (one, binary), (two, level), (three, graded) = (
        nsa(rng(2), image, other, label=label) for label in ("binary", "intensity", "logistic")
    )
    assert np.array_equal(one, two) and np.array_equal(one, three)
    assert level[binary == 1].max() > 20 and not graded[binary == 0].any()
    np.testing.assert_allclose(graded[binary == 1], 1 / (1 + np.exp(-(level[binary == 1] - 20) / 6)), rtol=1e-5)
    with pytest.raises(UserError, match="'binary', 'intensity' or 'logistic'"):
        nsa(rng(0), image, other, label="soft")


@pytest.mark.parametrize("make", [cutpaste, cutpaste_scar, lambda rng, image: nsa(rng, image, image[::-1])])
def test_the_generator_decides_everything(image, make):
    first, second, third = (make(np.random.default_rng(seed), image) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], third[0])


def test_feature_noise_has_its_size():
    features = (
        np.random.default_rng(0).normal(size=(40, 50, 16)).astype(np.float32) * np.arange(1, 51, dtype=np.float32)[:, None]
    )
    noise = gaussian_noise(jax.random.key(0), features, 0.015) - features
    assert abs(float(np.std(noise)) / 0.015 - 1) < 0.02
    noise = np.asarray(jitter(jax.random.key(0), features, 20.0) - features, np.float64)
    sigma = 20 * np.linalg.norm(features.astype(np.float64), axis=-1) / 16
    assert abs(np.sqrt(np.mean((noise / sigma[..., None]) ** 2)) - 1) < 0.01
    assert np.array_equal(jitter(jax.random.key(0), features, 20.0, 0.0), features)
