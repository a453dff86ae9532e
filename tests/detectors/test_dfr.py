"""DFR: the bottleneck's width, regions, maps against NumPy in float64; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.autoencoder.dfr import FeatureAutoencoder, dfr
from iadjax.errors import UserError
from tests.direct import batch_of, embed, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

OPTIONS = {"layers": ("layer1", "layer2"), "map_size": 24, "pooling": 3, "epochs": 1, "num_images": 3}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def frozen():
    return {"backbone": pyramid_variables()}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 32, 48, 3), np.float32)


@pytest.fixture(scope="module")
def counted(frozen, images):
    """The detector, the state after the components of the first three images, and the features of all."""
    detector = dfr(pyramid(), variance=0.7, **OPTIONS)
    spec = spec_for(detector, frozen, 4, (32, 48, 3))
    phase = detector.phases(spec)[0]
    state, update = detector.init(KEY, frozen, spec), jax.jit(phase.update)
    # the first batch has none of them, and the last a padded row
    for rows, valid in (([3, 3], [True, False]), ([2, 0], [True, True]), ([1, 2], [True, False])):
        batch = batch_of(detector, frozen, images[rows], valid=valid)._replace(index=np.array(rows, np.int32))
        state, _ = update(KEY, state, frozen, batch)
    return detector, phase.finalize(KEY, state, frozen), np.asarray(embed(detector, frozen, images), np.float64)


def test_regions_are_means_of_resized_levels(frozen, images, counted):
    levels = pyramid().features(frozen["backbone"], jnp.asarray(images), ("layer1", "layer2"))
    truth = [ops.block_mean(ops.resize(level, (24, 24), align_corners=True), 3) for level in levels]
    np.testing.assert_allclose(counted[2], np.concatenate(truth, axis=-1), rtol=1e-5)


def test_the_bottleneck_has_the_components_of_the_first_images(counted):
    _, state, features = counted
    vectors = features[:3].reshape(-1, features.shape[-1])
    variances = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    d = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.7)) + 1
    shapes = {name: part["kernel"].shape[2:] for name, part in state.variables["params"].items() if "kernel" in part}
    depth = features.shape[-1]
    middle = (depth + 2 * d) // 2
    assert 1 < d < depth and shapes == {
        "encoder_0": (depth, middle),
        "encoder_3": (middle, 2 * d),
        "encoder_6": (2 * d, d),
        "decoder_0": (d, 2 * d),
        "decoder_3": (2 * d, middle),
        "decoder_6": (middle, depth),
    }


def test_maps_by_numpy(frozen, images, counted):
    detector, state, features = counted
    params, stats = (
        {key: {k: np.asarray(v, np.float64) for k, v in part.items()} for key, part in state.variables[name].items()}
        for name in ("params", "batch_stats")
    )
    h = features
    for name in ("encoder_0", "encoder_3", "encoder_6", "decoder_0", "decoder_3", "decoder_6"):
        h = h @ params[name]["kernel"][0, 0] + params[name]["bias"]
        if not name.endswith("6"):
            norm = f"{name[:-1]}{int(name[-1]) + 1}"
            h = (h - stats[norm]["mean"]) / np.sqrt(stats[norm]["var"] + 1e-5) * params[norm]["scale"] + params[norm]["bias"]
            h = np.maximum(h, 0)
    error = ((h - features) ** 2).mean(-1)
    truth = ops.resize(error[..., None].astype(np.float32), (32, 48), align_corners=True)[..., 0]
    found = predict(detector, state, frozen, images)
    np.testing.assert_allclose(found.map, truth, rtol=1e-4)
    np.testing.assert_allclose(found.score, found.map.max((1, 2)))


def test_a_given_width_needs_no_components(frozen):
    detector = dfr(pyramid(), latent=5, batch_norm=False, **OPTIONS)
    spec = spec_for(detector, frozen, 4, (32, 48, 3))
    assert [phase.name for phase in detector.phases(spec)] == ["train"]
    params = jax.eval_shape(lambda: detector.init(KEY, frozen, spec)).variables
    assert set(params) == {"params"} and params["params"]["encoder_4"]["kernel"].shape[-1] == 5
    names = set(
        jax.eval_shape(FeatureAutoencoder(5, False).init, KEY, jax.ShapeDtypeStruct((1, 2, 2, 7), jnp.float32))["params"]
    )
    assert names == {f"{part}_{i}" for part in ("encoder", "decoder") for i in (0, 2, 4)}


def test_a_fit_goes_on_with_the_old_network(frozen, counted):
    detector, old, _ = counted
    fresh = detector.init(KEY, frozen, spec_for(detector, frozen, 4, (32, 48, 3)))
    new = detector.warm_start(fresh, old)
    jax.tree.map(np.testing.assert_array_equal, new.variables, old.variables)
    assert detector.phases(spec_for(detector, frozen, 4, (32, 48, 3)))[0].when == "fresh"


def test_bad_options_are_refused(frozen):
    for options, match in (
        ({"map_size": 25}, "multiple of pooling"),
        ({"variance": 1.0}, "variance"),
        ({"latent": -1}, "latent"),
    ):
        with pytest.raises(UserError, match=match):
            dfr(pyramid(), **{**OPTIONS, **options})
    detector = dfr(pyramid(), **OPTIONS)
    spec = spec_for(detector, frozen, 4, (32, 48, 3))
    with pytest.raises(UserError, match="first 3 training images do not vary"):
        detector.phases(spec)[0].finalize(KEY, detector.init(KEY, frozen, spec), frozen)
