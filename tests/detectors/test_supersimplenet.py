"""SuperSimpleNet: its loss by hand, labelled defects, mirrored anomalies, optimisers; tests/parity has anomalib's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.one_class.supersimplenet import draw_mask, flipped, supersimplenet, truncated_l1_of_patches
from iadjax.errors import UserError
from tests.direct import batch_of, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE, GRID = 32, (8, 8)


def built(**options):
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    detector = supersimplenet(backbone, layers=("layer2",), hidden=4, width=2, **options)
    spec = spec_for(detector, frozen, 4, (SIZE, SIZE, 3))
    return detector, frozen, spec, jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(1))


def test_masks_are_empty_in_half_of_the_draws():
    rng = np.random.default_rng(0)
    masks = np.stack([draw_mask(rng, GRID, 0.2) for _ in range(300)])
    assert masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
    # noise that is nowhere above the threshold leaves a few more empty
    assert 0.45 < np.mean(masks.max(axis=(1, 2)) == 0) < 0.75


def test_loss_of_patches_by_hand():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(3, 4, 5)), rng.integers(0, 2, (3, 4, 5)).astype(np.float32)
    valid = np.array([True, False, True])
    x, y = logits[valid], target[valid]
    expected = np.maximum(x[y == 0] + 0.5, 0).mean() + np.maximum(0.5 - x[y == 1], 0).mean()
    found = truncated_l1_of_patches(jnp.asarray(logits, jnp.float32), jnp.asarray(target), jnp.asarray(valid), 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # no anomalous patch: its term is 0
    found = truncated_l1_of_patches(jnp.asarray(logits, jnp.float32), jnp.zeros((3, 4, 5)), jnp.asarray(valid), 0.5)
    np.testing.assert_allclose(found, np.maximum(x + 0.5, 0).mean(), rtol=1e-5)


def test_labelled_anomalies_alone_are_mirrored_and_their_masks_alike():
    image = np.random.default_rng(0).random((64, 4, 6, 3), np.float32)
    label = np.arange(64) % 2
    first, second = flipped(jax.random.key(0), (jnp.asarray(image), jnp.asarray(image[..., :1])), jnp.asarray(label))
    np.testing.assert_array_equal(first[..., :1], second)
    np.testing.assert_array_equal(first[::2], image[::2])
    forms = [image, image[:, ::-1], image[:, :, ::-1], image[:, ::-1, ::-1]]
    chosen = [[np.array_equal(form[i], first[i]) for form in forms].index(True) for i in range(1, 64, 2)]
    assert set(chosen) == {0, 1, 2, 3}


def test_a_labelled_defect_is_a_target_without_noise():
    detector, frozen, spec, state = built(anomaly_fraction=0.5, adaptor_rate=1e-9, learning_rate=1e-9)
    (phase,) = detector.phases(spec)
    assert phase.anomaly_fraction == 0.5
    image = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    mask = np.zeros((2, SIZE, SIZE), np.uint8)
    mask[1, :8, :16] = 1
    update = jax.jit(phase.update)

    def losses(perlin, label, mask):
        batch = batch_of(detector, frozen, image, label=label, extra={"perlin": perlin})._replace(mask=mask)
        return jax.device_get(update(jax.random.key(0), state, frozen, batch)[1])

    none, whole = np.zeros((2, 2, *GRID), np.uint8), np.zeros((2, 2, *GRID), np.uint8)
    whole[1, :, :2, :4] = 1
    labelled, noised = losses(none, [0, 1], mask), losses(whole, [0, 1], mask)
    # Perlin noise within the labelled defect changes nothing
    assert labelled == noised
    # without the label the same noise is an anomaly of its own: the targets are the same, the features are not
    drawn = losses(whole, [0, 0], np.zeros_like(mask))
    assert drawn["loss_l1"] != labelled["loss_l1"]
    np.testing.assert_allclose(drawn["loss_l1"], labelled["loss_l1"], rtol=0.2)
    assert losses(none, [0, 0], np.zeros_like(mask))["loss_score"] != labelled["loss_score"]


def test_bad_options_are_refused():
    for options, match in (({"patch_size": 2}, "patch_size"), ({"anomaly_fraction": 1.0}, "anomaly_fraction")):
        with pytest.raises(UserError, match=match):
            built(**options)
