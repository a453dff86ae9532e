"""DiffusionAD: its synthetic anomalies, the rate of the segmentation, refusals; tests/parity has the authors' numbers."""

import numpy as np
import pytest

from iadjax.detectors.diffusion.diffusionad import diffusionad
from iadjax.errors import UserError
from tests.direct import phases

IMAGE = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)


def test_half_of_the_images_get_an_anomaly_inside_its_mask():
    augment = phases(diffusionad())[0].augment
    made = [augment(np.random.default_rng(i), IMAGE, None) for i in range(100)]
    drawn = [each for each in made if each["mask"].any()]
    assert 30 <= len(drawn) <= 60
    for each in made:
        assert each["augmented"].dtype == np.float32 and np.array_equal(
            each["augmented"][each["mask"] == 0], IMAGE[each["mask"] == 0]
        )
    assert all(np.abs(each["augmented"] - IMAGE).max() > 0 for each in drawn)


def test_anomalies_lie_in_the_foreground():
    image = IMAGE.copy()
    image[:, :24] *= 0.1
    image[:, 24:] = 0.5 + 0.5 * image[:, 24:]
    augment = phases(diffusionad(foreground="bright", anomaly_prob=1.0))[0].augment
    masks = np.stack([augment(np.random.default_rng(i), image, None)["mask"] for i in range(20)])
    assert masks[:, :, 24:].any() and not masks[:, :, :24].any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"foreground": "left"}, "foreground must be 'all', 'dark' or 'bright'"), ({"less_noise": 1000}, "less_noise must be in")],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        diffusionad(**options)
