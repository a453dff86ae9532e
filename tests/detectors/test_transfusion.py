"""TransFusion: the steps of its diffusion, its anomalies and their masks, refusals; tests/parity has the authors' numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from iadjax.detectors.diffusion.transfusion import clearer, transfusion
from iadjax.errors import UserError
from iadjax.synthesis.perlin_texture import rotate
from iadjax.synthesis.source import draw_texture
from iadjax.synthesis.transparent import transparent_anomaly
from tests.direct import phases

IMAGE = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)


def test_steps_back_undo_the_steps_of_the_diffusion():
    """Eq. 3 in float64: x_t = (1 - M) x_0 + (1 - beta_t) M x_0 + beta_t M e."""
    rng, times = np.random.default_rng(1), 8
    normal, appearance = rng.uniform(-1, 1, (2, 3, 4, 5, 3))
    mask = (rng.random((3, 4, 5)) < 0.5).astype(np.float64)
    betas = np.linspace(0, 1, times)

    def x(t):
        beta, m = betas[t][:, None, None, None], mask[..., None]
        return (1 - m) * normal + (1 - beta) * m * normal + beta * m * appearance

    t = np.array([1, 4, 7])
    parts = (x(t), betas, betas[t][:, None, None, None] * appearance, normal, mask)
    seen, opacity, anomaly, clean, where = (jnp.asarray(part, jnp.float32) for part in parts)
    np.testing.assert_allclose(clearer(seen, jnp.asarray(t), opacity, anomaly, clean, where), x(t - 1), atol=1e-6)
    # nothing is left of the anomaly at time 0
    np.testing.assert_allclose(x(t - 1)[0], normal[0])


def test_training_images_have_an_anomaly_within_its_mask_half_of_the_time():
    augment = phases(transfusion(rotate_prob=0.0))[0].augment
    made = [augment(np.random.default_rng(i), IMAGE, None) for i in range(100)]
    assert 30 <= sum(each["mask"].any() for each in made) <= 60
    for each in made:
        np.testing.assert_array_equal(each["normal"], 2 * IMAGE - 1)
        assert not each["appearance"][each["mask"] == 0].any() and set(np.unique(each["mask"])) <= {0, 1}
        assert all(array.dtype == np.float32 for array in each.values())
        if not each["mask"].any():
            assert not each["given"].any()


def test_a_rotated_image_takes_its_masks_with_it():
    augment = phases(transfusion(rotate_prob=1.0, anomaly_prob=1.0))[0].augment
    made = next(each for i in range(20) if (each := augment(np.random.default_rng(i), IMAGE, None))["mask"].any())
    # grey corners, which is 0 in [-1, 1], without an anomaly
    outside = rotate(np.ones((48, 48), np.float32), 15.0, Image.Resampling.NEAREST) == 0
    assert outside.any() and not rotate(IMAGE, 15.0, Image.Resampling.NEAREST)[outside].any()
    assert np.all(made["normal"][0, 0] == 0) and made["mask"][0, 0] == 0
    assert not made["appearance"][made["mask"] == 0].any()


def test_faulty_masks_are_empty_smaller_the_same_or_larger():
    kinds = {"empty": 0, "smaller": 0, "same": 0, "larger": 0}
    for i in range(400):
        appearance, mask, faulty = transparent_anomaly(np.random.default_rng(i), IMAGE, draw_texture)
        assert appearance.shape == IMAGE.shape and appearance.min() >= 0 and appearance.max() <= 1
        if mask.sum() < 40:
            continue
        # thresholds of one noise: masks are nested
        assert not (faulty & ~mask).any() or not (mask & ~faulty).any()
        size = faulty.sum()
        name = "empty" if not size else "same" if size == mask.sum() else "smaller" if size < mask.sum() else "larger"
        kinds[name] += 1
    total = sum(kinds.values())
    # a high threshold may leave no pixel
    assert total > 200 and kinds["same"] / total == pytest.approx(0.25, abs=0.08)
    assert kinds["larger"] / total == pytest.approx(0.25, abs=0.08)
    assert kinds["empty"] / total > 0.17 and kinds["smaller"] / total > 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"foreground": "left"}, "foreground must be 'all', 'dark' or 'bright'"),
        ({"skipped": 19}, r"detector.skipped must be in \[0, 19\), got 19"),
        ({"attended": 5}, r"detector.attended must be in \[0, 4\], got 5"),
        ({"width": 7}, "width even"),
        ({"window": 4}, "detector.window must be a positive odd number"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        transfusion(**options)
