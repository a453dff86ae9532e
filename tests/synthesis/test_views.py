"""Views: all are different, positions as PyTorch samples them, the grey one by hand."""

import numpy as np
import pytest

from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from iadjax.synthesis.views import NUM_VIEWS, view

IMAGE = np.random.default_rng(0).random((20, 20, 3)).astype(np.float32)


def test_every_view_is_another_image_of_the_same_size():
    views = [view(IMAGE, i) for i in range(NUM_VIEWS)]
    assert NUM_VIEWS == 22 and all(each.shape == IMAGE.shape and each.dtype == np.float32 for each in views)
    assert len({each.tobytes() for each in views}) == NUM_VIEWS
    np.testing.assert_array_equal(views[0], IMAGE)
    np.testing.assert_array_equal(views[17], IMAGE[:, ::-1])
    np.testing.assert_array_equal(views[20], IMAGE[::-1, ::-1])


def test_rotations_and_shifts_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None]

    def sampled(matrix):
        grid = torch.nn.functional.affine_grid(torch.tensor([matrix], dtype=torch.float32), images.shape, align_corners=False)
        found = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        return found[0].numpy().transpose(1, 2, 0)

    sixteenths = [-4, -3, -2, -1, 1, 2, 3, 4]
    for i, angle in enumerate(np.pi * each / 16 for each in sixteenths):
        turned = sampled([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
        np.testing.assert_allclose(view(IMAGE, 1 + i), turned, atol=1e-5)
    shifts = [(0.2, 0.2), (-0.2, 0.2), (-0.2, -0.2), (0.2, -0.2), (0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1)]
    for i, (a, b) in enumerate(shifts):
        np.testing.assert_allclose(view(IMAGE, 9 + i), sampled([[1, 0, a], [0, 1, b]]), atol=1e-5)


def test_the_grey_view_has_equal_normalised_channels():
    grey = (view(IMAGE, 18) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    normalised = (IMAGE.astype(np.float64) - IMAGENET_MEAN) / IMAGENET_STD
    expected = normalised[..., 0] * 0.299 + normalised[..., 1] * 0.587 + normalised[..., 2] * 0.114
    for channel in range(3):
        np.testing.assert_allclose(grey[..., channel], expected, atol=1e-5)


def test_a_quarter_turn_of_an_image_that_is_not_square_keeps_its_sides():
    gradient = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32)[None, :, None], (8, 16, 3))
    turned = view(gradient, 19)
    assert turned.shape == (8, 16, 3)
    # the right side comes to the top
    assert np.all(np.diff(turned[:, 0, 0]) < 0) and np.ptp(turned[3]) < 1e-6
