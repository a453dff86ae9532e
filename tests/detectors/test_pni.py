"""PNI against a plain search in NumPy float64, and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from iadjax import losses
from iadjax.detectors.families.patch_bank import position_histogram
from iadjax.detectors.memory_bank.pni import pni
from iadjax.errors import UserError
from iadjax.nn.neighborhood import Neighborhood
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY = jax.random.key(0)
OPTIONS = {
    "layers": ("layer2",),
    "patch_size": 3,
    "pretrain_dimension": 6,
    "target_dimension": 6,
    # more rows than entries: where the authors' masks mix them up
    "coreset_ratio": 0.25,
    "distribution_size": 7,
    "reach": 1,
    "mlp_layers": 2,
    "hidden": 8,
    "epochs": 1,
    "sigma": 0.0,
    "refine_width": 4,
    "refine_halvings": 1,
}


@pytest.fixture(scope="module")
def fitted():
    detector = pni(BACKBONE, **OPTIONS, learning_rate=0.1, refine_steps=1, refine_learning_rate=0.1, refine_weight=0.5)
    train = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    train[..., :32, :, :] *= 0.2
    spec = spec_for(detector, FROZEN, 3, (64, 64, 3))
    fit, learn, refine = detector.phases(spec)
    state = jax.jit(lambda key: detector.init(key, FROZEN, spec))(KEY)
    augmented = [refine.augment(np.random.default_rng(i), image, None) for i, image in enumerate(train)]
    extra = {name: np.stack([each[name] for each in augmented]) for name in ("augmented", "mask")}
    # the last image is padding
    batch = batch_of(detector, FROZEN, train, valid=[True, True, True, False], extra=extra)
    state, _ = jax.jit(fit.update)(KEY, state, FROZEN, batch)
    state = fit.finalize(KEY, state, FROZEN)
    learned, info = jax.jit(learn.update)(KEY, state, FROZEN, batch)
    assert np.isfinite(info["loss"])
    refined, info = jax.jit(refine.update)(KEY, learned, FROZEN, batch)
    assert np.isfinite(info["loss"])
    return detector, train, state, refined


def inner(features):
    return np.asarray(features, np.float64)[:, 1:-1, 1:-1]


def test_coresets_and_histogram_are_of_patches_inside(fitted):
    detector, train, state, _ = fitted
    patches = inner(detector.embed(FROZEN, train[:3]))
    rows = patches.reshape(-1, 6)
    # a quarter of 3 images of 6 x 6 patches
    assert state.embedding.shape == (27, 6) and state.distribution.shape == (7, 6)
    assert cdist(np.asarray(state.embedding, np.float64), rows).min(axis=1).max() < 1e-5
    np.testing.assert_array_equal(state.distribution, state.embedding[:7])
    np.testing.assert_array_equal(state.entry, cdist(state.embedding, state.distribution).argmin(axis=1))
    distance = cdist(rows, np.asarray(state.embedding, np.float64))
    assert float(state.radius) == pytest.approx(distance.min(axis=1).max(), rel=1e-4)
    counts = np.zeros((8, 8, 27))
    nearest = distance.argmin(axis=1).reshape(3, 6, 6)
    for i in range(8):
        for j in range(8):
            for image in range(3):
                for y in range(max(1, i - 1), min(7, i + 2)):
                    for x in range(max(1, j - 1), min(7, j + 2)):
                        counts[i, j, nearest[image, y - 1, x - 1]] += 1
    np.testing.assert_allclose(state.position, counts / counts.sum(axis=2, keepdims=True), atol=1e-6)


def test_scores_are_those_of_a_plain_search(fitted):
    detector, _, _, state = fitted
    test = np.random.default_rng(5).random((2, 64, 64, 3), np.float32)
    found = predict(detector, state, FROZEN, test)
    features = detector.embed(FROZEN, test)
    network = Neighborhood(7, 2, 8, 0.5, 1, 1, False)
    logits = np.asarray(network.apply(state.neighborhood.variables, features), np.float64)
    likely = np.exp(logits / 2) / np.exp(logits / 2).sum(-1, keepdims=True)
    scores = []
    for image in range(2):
        values = np.zeros((6, 6))
        for i in range(6):
            for j in range(6):
                distance = cdist(inner(features)[image, i, j][None], np.asarray(state.embedding, np.float64))[0]
                allowed = np.asarray(state.position)[i + 1, j + 1] > 0.5 / 27
                near = np.array([likely[image, i, j, entry] > 0.5 / 27 for entry in state.entry])
                both = [distance[mask].min() if mask.any() else distance.max() for mask in (allowed, near)]
                values[i, j] = -np.log(0.99 * np.exp(-0.99 * np.array(both))).mean()
        scores.append(values.max())
    np.testing.assert_allclose(found.score, scores, rtol=1e-4)
    # without the refinement's part, a border of patches repeats the next ones
    plain = predict(pni(BACKBONE, **OPTIONS, refine_steps=0), state, FROZEN, test)
    np.testing.assert_array_equal(plain.score, found.score)
    np.testing.assert_allclose(plain.map[:, 0], plain.map[:, 8], rtol=1e-4)
    assert np.abs(found.map - plain.map).max() > 1e-3
    full = pni(BACKBONE, **OPTIONS, refine_steps=1, refine_weight=1.0)
    part = predict(detector, state, FROZEN, test).map - plain.map
    np.testing.assert_allclose(predict(full, state, FROZEN, test).map - plain.map, 2 * part, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("skip_next", [False, True])
def test_the_network_does_not_see_the_patch_itself(skip_next):
    network = Neighborhood(5, 2, 8, 0.0, 1, 0, skip_next)
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 3)).astype(np.float32)
    variables = network.init(KEY, x)
    apply = jax.jit(network.apply)
    before = np.asarray(apply(variables, x))
    x[0, 2, 2] += 1
    changed = np.abs(np.asarray(apply(variables, x)) - before).max(axis=-1)[0] > 1e-6
    wanted = np.zeros((5, 5), bool)
    wanted[1:4, 1:4] = True
    # as written by the authors, it is the position before which does not see it
    wanted[(2, 1) if skip_next else (2, 2)] = False
    np.testing.assert_array_equal(changed, wanted)


def test_loss_of_edges_on_paper():
    x = np.zeros((1, 2, 3), np.float32)
    x[0, 0, 1] = 2
    # one square of 4; two differences along a row and one along a column, each 4; of 6 positions
    assert float(losses.edge_mse(jnp.asarray(x), jnp.zeros((1, 2, 3)))[0]) == pytest.approx((4 / 2 + 8 / 4 + 4 / 4) / 6)


def test_positions_without_a_patch_nearby_know_nothing():
    counts = np.zeros((5, 1, 2), np.float32)
    counts[0, 0] = (3, 1)
    np.testing.assert_allclose(position_histogram(counts, 1)[:, 0], [[0.75, 0.25], [0.75, 0.25], [0, 0], [0, 0], [0, 0]])


def test_refusals():
    with pytest.raises(UserError, match="mlp_layers must be at least 2"):
        pni(BACKBONE, layers=("layer2",), mlp_layers=1)
    detector = pni(BACKBONE, **OPTIONS | {"refine_halvings": 4}, refine_steps=1)
    with pytest.raises(UserError, match="multiples of 16"):
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 3, (56, 56, 3)))
    detector = pni(BACKBONE, **OPTIONS | {"patch_size": 9}, refine_steps=0)
    with pytest.raises(UserError, match="no patch inside the border of 4"):
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 3, (64, 64, 3)))
