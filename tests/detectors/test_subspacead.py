"""SubspaceAD against scikit-learn, with its rotated references."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.decomposition import PCA

from iadjax.config import load_config
from iadjax.detectors.distribution.subspacead import subspacead
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, phases, predict, spec_for

FROZEN = {"backbone": {}}


def fitted(images, **options):
    """The detector on `filter_bank`, fitted in batches of two; and the images that it saw, with the rotated ones."""
    backbone = tiny.bank()
    detector = subspacead(backbone, layers=("layer2",), **options)
    state = detector.init(jax.random.key(0), FROZEN, spec_for(detector, FROZEN, len(images), images.shape[1:]))
    seen, rng = [], np.random.default_rng(1)
    for phase in phases(detector):
        update = jax.jit(phase.update)
        for _ in range(phase.epochs):
            for start in range(0, len(images), 2):
                part, extra = images[start : start + 2], {}
                if phase.augment:
                    extra = {"rotated": np.stack([phase.augment(rng, image, lambda: None)["rotated"] for image in part])}
                seen.append(extra.get("rotated", part))
                state, _ = update(jax.random.key(0), state, FROZEN, batch_of(detector, FROZEN, part, extra=extra))
        state = phase.finalize(jax.random.key(0), state, FROZEN)
    return backbone, detector, state, np.concatenate(seen)


@pytest.mark.parametrize("rotations", [0, 2])
def test_scores_and_maps_follow_the_paper(rotations):
    rng = np.random.default_rng(0)
    images, tests = rng.random((4, 48, 48, 3), np.float32), rng.random((2, 48, 48, 3), np.float32)
    backbone, detector, state, seen = fitted(images, rotations=rotations, variance=0.8, kernel_size=5, sigma=2.0, top=0.05)
    assert len(seen) == 4 * (1 + rotations)
    tokens = lambda x: np.asarray(parity.features(backbone, {}, x, ("layer2",))[0], np.float64)  # noqa: E731
    pca = PCA(0.8, svd_solver="full").fit(tokens(seen).reshape(-1, 18))
    assert state.complement.shape == (18, 18 - pca.n_components_)
    x = tokens(tests).reshape(-1, 18)
    residual = np.sum((x - pca.inverse_transform(pca.transform(x))) ** 2, axis=1).reshape(2, 6, 6)
    place = np.clip((np.arange(48) + 0.5) / 8 - 0.5, 0, 5)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(6)))
    maps = np.einsum("ai,bij,cj->bac", weights, residual, weights)
    # five taps: a radius of one sigma
    maps = ndimage.gaussian_filter(maps, (0, 2.0, 2.0), mode="mirror", truncate=1.0)
    found = predict(detector, state, FROZEN, tests)
    parity.assert_close(found.map, maps, 1e-4)
    parity.assert_close(found.score, np.sort(maps.reshape(2, -1), axis=1)[:, -int(0.05 * 48 * 48) :].mean(1), 1e-4)


def test_rotated_copies_are_those_of_pillow():
    detector = subspacead(tiny.bank(), layers=("layer1",), rotations=3)
    reference, rotations = phases(detector)
    assert reference.epochs == 1 and rotations.epochs == 3
    image = np.random.default_rng(0).random((20, 30, 3), np.float32)
    found = rotations.augment(np.random.default_rng(5), image, None)["rotated"]
    angle = np.random.default_rng(5).uniform(0, 345)
    whole = Image.fromarray(np.round(255 * image).astype(np.uint8)).rotate(angle)
    np.testing.assert_array_equal(np.round(255 * found), np.asarray(whole))


def test_the_authors_rotate_no_transistor():
    for category, number in (("transistor", 0), ("bottle", 30)):
        assert load_config(f"few_shot/subspacead.py:mvtec_ad,category={category}").detector.rotations == number


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="aggregation must be 'mean' or 'concatenate'"):
        subspacead(bank, layers=("layer1",), aggregation="sum")
    with pytest.raises(UserError, match="kernel_size must be a positive odd number"):
        subspacead(bank, layers=("layer1",), kernel_size=4)
    with pytest.raises(UserError, match="have several shapes, so no mean"):
        spec_for(subspacead(bank, layers=("layer1", "layer2")), FROZEN, 1, (48, 48, 3))
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    with pytest.raises(UserError, match="takes all 18 channels.*lower detector.variance"):
        fitted(images, rotations=0, variance=1 - 1e-9)
