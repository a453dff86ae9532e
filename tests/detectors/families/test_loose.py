"""Groups of levels, the weighed gradient and the score of the loose reconstruction, each against a slow reading."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.detectors.families.loose import (
    Grouped,
    embed_groups,
    hardest,
    heads_of,
    loose_cosine,
    loose_prediction,
    position_mean,
    restored_groups,
    tokens_of,
)
from iadjax.errors import UserError

RNG = np.random.default_rng(0)
LEVELS = {f"block{i}": RNG.normal(size=(2, 3, 2, 4)).astype(np.float32) for i in range(1, 5)}
CLASSES = {f"block{i}.class": RNG.normal(size=(2, 4)).astype(np.float32) for i in range(1, 5)}
REGISTERS = {f"block{i}.registers": RNG.normal(size=(2, 2, 4)).astype(np.float32) for i in range(1, 5)}


def given(*parts):
    """A backbone whose layers are given arrays."""
    arrays = {name: array for part in parts for name, array in part.items()}
    return Backbone("given", tuple(arrays), lambda key, layers: {}, lambda variables, image, names: [arrays[n] for n in names])


def embedded(*parts, special=True, recenter=False):
    return embed_groups(given(*parts), {}, None, tuple(LEVELS), 2, special, recenter)


def test_groups_are_means_and_special_tokens_come_first():
    found = embedded(LEVELS, CLASSES, REGISTERS)
    levels = list(LEVELS.values())
    for group, pair in zip(found.groups, (levels[:2], levels[2:]), strict=True):
        np.testing.assert_allclose(group, (pair[0] + pair[1]) / 2, rtol=1e-6)
    tokens = tokens_of(found)
    assert tokens.shape == (2, 1 + 2 + 6, 4)
    np.testing.assert_allclose(tokens[:, 0], sum(CLASSES.values()) / 4, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tokens[:, 1:3], sum(REGISTERS.values()) / 4, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tokens[:, 3:], sum(levels).reshape(2, 6, 4) / 4, rtol=1e-5, atol=1e-7)
    # without them, or where the network has none
    for other in (embedded(LEVELS, CLASSES, REGISTERS, special=False), embedded(LEVELS)):
        assert other.special is None
        np.testing.assert_array_equal(tokens_of(other), tokens_of(found)[:, 3:])


def test_recentering_subtracts_the_class_token_of_each_level():
    found = embedded(LEVELS, CLASSES, REGISTERS, recenter=True)
    assert found.special is None
    expected = [LEVELS[f"block{i}"].astype(np.float64) - CLASSES[f"block{i}.class"][:, None, None] for i in range(1, 5)]
    np.testing.assert_allclose(found.groups[1], (expected[2] + expected[3]) / 2, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="recenter subtracts class tokens, and given has none"):
        embedded(LEVELS, recenter=True)


def test_levels_come_to_the_first_grid_and_need_one_width():
    coarse = {name: array[:, : 1 + (i < 1) * 2] for i, (name, array) in enumerate(LEVELS.items())}
    found = embedded(coarse)
    assert all(group.shape == (2, 3, 2, 4) for group in found.groups)
    with pytest.raises(UserError, match="have 2, 4 channels, and their mean is needed"):
        embedded(LEVELS | {"block2": LEVELS["block2"][..., :2]})
    with pytest.raises(UserError, match="heads=3 does not divide the 4 channels"):
        heads_of(3, 4)
    assert heads_of(0, 768) == 12 and heads_of(0, 18) == 1


def test_the_last_layers_restore_the_first_group():
    features = embedded(LEVELS, CLASSES)
    outputs = [jnp.full((2, 7, 4), float(i)) for i in range(4)]
    first, second = restored_groups(outputs, features)
    assert first.shape == (2, 3, 2, 4)
    assert np.all(first == 2.5) and np.all(second == 0.5)


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_loss_is_of_flat_features_and_its_gradient_is_weighed_by_position():
    x, y = (RNG.normal(size=(3, 2, 2, 4)) for _ in range(2))
    features = Grouped((jnp.asarray(x, jnp.float32),), None)
    weight = RNG.random((3, 2, 2))
    valid = jnp.array([True, True, False])

    def loss(restored, weigh):
        return jnp.sum(loose_cosine(features, (restored,), valid, weigh))

    seen = []
    ours = jax.grad(loss)(
        jnp.asarray(y, jnp.float32), lambda distance, valid: (seen.append(distance), jnp.asarray(weight, jnp.float32))[1]
    )
    plain = jax.grad(loss)(jnp.asarray(y, jnp.float32), lambda distance, valid: jnp.ones_like(distance))
    np.testing.assert_allclose(ours, weight[..., None] * np.asarray(plain), rtol=1e-5)
    expected = [[[1 - cosine(x[b, i, j], y[b, i, j]) for j in range(2)] for i in range(2)] for b in range(3)]
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5, atol=1e-6)
    value = loss(jnp.asarray(y, jnp.float32), lambda distance, valid: jnp.ones_like(distance))
    np.testing.assert_allclose(value, sum(1 - cosine(x[b].ravel(), y[b].ravel()) for b in range(3)), rtol=1e-5)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.3, 1e-4])
def test_the_hardest_positions_are_those_of_the_real_rows(fraction):
    distance = RNG.random((3, 3, 2)).astype(np.float32)
    # the largest ones are in a padded row
    distance[1] += 10
    valid = jnp.array([True, False, True])
    ordered = sorted(np.concatenate([distance[0].ravel(), distance[2].ravel()]), reverse=True)
    assert hardest(jnp.asarray(distance), valid, jnp.float32(fraction)) == ordered[max(1, int(12 * fraction)) - 1]
    np.testing.assert_allclose(position_mean(jnp.asarray(distance), valid), np.mean(ordered), rtol=1e-6)


def test_score_is_the_mean_of_the_largest_hundredth_of_a_smoothed_map():
    x, y = (RNG.normal(size=(2, 3, 2, 4)).astype(np.float32) for _ in range(2))
    features = Grouped((jnp.asarray(x),), None)
    found = loose_prediction(features, (jnp.asarray(y),), (24, 16), 12, 4.0, 5, 0.1)
    distance = np.array([[[1 - cosine(x[b, i, j], y[b, i, j]) for j in range(2)] for i in range(3)] for b in range(2)])
    maps = ops.resize(jnp.asarray(distance, jnp.float32)[..., None], (24, 16), align_corners=True)
    maps = np.asarray(ops.resize(maps, (12, 8))[..., 0], np.float64)
    kernel = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 4.0**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    maps = np.stack([ndimage.correlate(each, kernel, mode="constant") for each in maps])
    np.testing.assert_allclose(found.score, np.sort(maps.reshape(2, -1))[:, -9:].mean(axis=1), rtol=1e-5)
    assert found.map.shape == (2, 24, 16)
    np.testing.assert_allclose(found.map, ops.resize(jnp.asarray(maps, jnp.float32)[..., None], (24, 16))[..., 0], atol=1e-6)
