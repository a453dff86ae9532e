"""Spatial transformers against SciPy's interpolation, and maps there and back."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from iadjax.nn.spatial import affine, inverse, warp

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 6, 9, 3)).astype(np.float32)
THETA = affine(jnp.float32(RNG.uniform(-1, 1, (2, 5))), 40.0, 0.3, 0.4)


def test_warp_reads_the_mirrored_image_at_the_points_of_theta():
    height, width = IMAGE.shape[1:3]
    y, x = np.meshgrid((np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1, indexing="ij")
    for image, theta, found in zip(IMAGE, np.asarray(THETA, np.float64), np.asarray(warp(IMAGE, THETA)), strict=True):
        u = theta[0, 0] * x + theta[0, 1] * y + theta[0, 2]
        v = theta[1, 0] * x + theta[1, 1] * y + theta[1, 2]
        places = [((v + 1) * height - 1) / 2, ((u + 1) * width - 1) / 2]
        # SciPy's "reflect" mirrors about the edge of the outer pixels, as PyTorch does without aligned corners
        for channel in range(3):
            expected = map_coordinates(image[..., channel].astype(np.float64), places, order=1, mode="reflect")
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


def test_no_parameters_are_the_identity_and_the_inverse_leads_back():
    np.testing.assert_allclose(warp(IMAGE, affine(jnp.zeros((2, 5)), 40.0, 0.3, 0.4)), IMAGE, atol=1e-5)
    full = np.concatenate([np.asarray(THETA), np.broadcast_to([[[0, 0, 1]]], (2, 1, 3))], axis=1)
    np.testing.assert_allclose(inverse(THETA), np.linalg.inv(full)[:, :2], atol=1e-5)


def test_pytorch_moves_images_alike():
    torch = pytest.importorskip("torch")
    grid = torch.nn.functional.affine_grid(torch.from_numpy(np.array(THETA)), (2, 3, 6, 9), align_corners=False)
    nchw = torch.from_numpy(IMAGE).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.grid_sample(nchw, grid, padding_mode="reflection", align_corners=False)
    np.testing.assert_allclose(warp(IMAGE, THETA), theirs.permute(0, 2, 3, 1), atol=1e-4)
