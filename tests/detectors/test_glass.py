"""GLASS: the shell, quantiles, local anomalies, the centre and its epochs; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.one_class.glass import glass, on_grid, project
from iadjax.errors import UserError
from iadjax.synthesis.perlin_texture import combined_anomaly
from iadjax.synthesis.source import draw_texture
from tests.direct import batch_of, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE = 32


def built(**options):
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    sizes = {"pretrain_dimension": 8, "target_dimension": 8, "hidden": 4}
    detector = glass(backbone, layers=("layer2",), ascent_steps=1, **sizes, **options)
    spec = spec_for(detector, frozen, 4, (SIZE, SIZE, 3), steps_per_epoch=3, batch_size=2)
    return detector, frozen, spec, jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(1))


def test_features_move_into_the_shell():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 5)).astype(np.float32) * np.array([0.1, 1, 9])[:, None].astype(
        np.float32
    )
    about = jnp.ones((1, 3, 3, 5))
    moved = np.asarray(project(jnp.asarray(x), about, 1.0, 2.0)) - 1
    distance = np.linalg.norm(x - 1, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), np.clip(distance, 1, 2), rtol=1e-5)
    np.testing.assert_allclose(moved / np.linalg.norm(moved, axis=-1, keepdims=True), (x - 1) / distance[..., None], atol=1e-5)


@pytest.mark.parametrize("q", [0.0, 0.5, 0.75])
def test_quantiles_are_numpys(q):
    rng = np.random.default_rng(0)
    values, where = rng.normal(size=(3, 7)).astype(np.float32), rng.random((3, 7)) < 0.5
    found = jax.jit(lambda v, w: ops.quantile_where(v, w, q))(values, where)
    np.testing.assert_allclose(found, np.quantile(values[where], q), rtol=1e-6)
    assert ops.quantile_where(jnp.asarray(values), jnp.zeros((3, 7), bool), q) == 0


def test_local_anomalies_are_never_empty_and_the_grid_keeps_the_smallest():
    rng = np.random.default_rng(0)
    image = np.full((48, 40, 3), 0.5, np.float32)
    for _ in range(20):
        changed, mask = combined_anomaly(rng, image, draw_texture)
        assert mask.any() and np.array_equal(changed[mask == 0], image[mask == 0])
        assert np.array_equal(on_grid(mask, (6, 5)), mask.reshape(6, 8, 5, 8).max(axis=(1, 3)))
    _, mask = combined_anomaly(rng, image, draw_texture, tries=0)
    assert mask.sum() == 1


def test_the_centre_is_the_mean_over_images_and_is_renewed_once_in_an_epoch():
    """The authors average means of batches, in which the images of a short last batch weigh more."""
    detector, frozen, spec, state = built(limit=3, adaptor_rate=0.1)
    first, second = detector.phases(spec)
    # an epoch ends with the batch in which more than 3 images were seen
    assert second.steps == 640 * 2
    image = np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)
    valid = np.array([True, False])
    average = jax.jit(first.update)
    state, _ = average(jax.random.key(0), state, frozen, batch_of(detector, frozen, image[:2]))
    state, _ = average(jax.random.key(0), state, frozen, batch_of(detector, frozen, image[[2, 0]], valid=valid))
    features = batch_of(detector, frozen, image).features
    np.testing.assert_allclose(state.mean, np.mean(features, axis=0), rtol=1e-5)
    grid = spec.features.shape[1:3]
    extra = {"augmented": image[:2, ::-1], "mask": np.ones((2, *grid), np.uint8)}
    batch, update, centres = batch_of(detector, frozen, image[:2], extra=extra), jax.jit(second.update), []
    for _ in range(3):
        kernel = state.trained.variables["params"]["adaptor"]["layers_0fc"]
        expected = state.mean @ kernel["kernel"] + kernel["bias"][None, None]
        state, _ = update(jax.random.key(0), state, frozen, batch)
        centres.append((np.asarray(state.centre), np.asarray(expected)))
    np.testing.assert_allclose(centres[0][0], centres[0][1], rtol=1e-5)
    np.testing.assert_array_equal(centres[1][0], centres[0][0])
    np.testing.assert_allclose(centres[2][0], centres[2][1], rtol=1e-5)
    assert not np.allclose(centres[2][0], centres[0][0])


def test_bad_options_are_refused():
    for options, match in (
        ({"distribution": "sphere"}, "distribution"),
        ({"patch_size": 2}, "patch_size"),
        ({"radius": 1.0}, "radius"),
    ):
        with pytest.raises(UserError, match=match):
            built(**options)
