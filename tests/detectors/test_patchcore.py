"""PatchCore against the paper's formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from iadjax import ops
from iadjax.detectors.memory_bank.patchcore import patchcore
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for

LAYERS = ("layer1", "layer2")
BACKBONE = tiny.bank()
FROZEN = {"backbone": {}}
KEY = jax.random.key(0)


def fitted(detector, images):
    spec = spec_for(detector, FROZEN, len(images), images.shape[1:])
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
    state, _ = jax.jit(phases(detector)[0].update)(KEY, state, FROZEN, batch_of(detector, FROZEN, images))
    return phases(detector)[0].finalize(KEY, state, FROZEN)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((5, 32, 32, 3), np.float32)


def embed(images):
    """Section 3.1 with average pooling: levels pooled over 3 x 3, the deeper one resized, channels concatenated."""
    levels = BACKBONE.features({}, jnp.asarray(images), LAYERS)
    pooled = [ndimage.uniform_filter(np.asarray(x, np.float64), (1, 3, 3, 1), mode="constant") for x in levels]
    grid = pooled[0].shape[1:3]
    place = [np.clip((np.arange(n) + 0.5) / 2 - 0.5, 0, n // 2 - 1) for n in grid]
    rows, columns = np.meshgrid(*place, indexing="ij")
    deeper = np.stack(
        [
            np.stack(
                [ndimage.map_coordinates(pooled[1][b, ..., c], [rows, columns], order=1) for c in range(pooled[1].shape[-1])],
                -1,
            )
            for b in range(len(images))
        ]
    )
    return np.concatenate([pooled[0], deeper], axis=-1)


@pytest.mark.parametrize("reweight", [False, True])
def test_scores_and_maps_follow_the_paper(images, reweight):
    detector = patchcore(BACKBONE, layers=LAYERS, coreset_ratio=1.0, reweight=reweight, num_neighbors=4, sigma=2.0)
    state = fitted(detector, images[:3])
    found = predict(detector, state, FROZEN, images[3:])

    bank = embed(images[:3]).reshape(-1, state.features.shape[-1])
    np.testing.assert_allclose(state.features, bank, atol=1e-5)
    for i, features in enumerate(embed(images[3:])):
        distance = cdist(features.reshape(-1, features.shape[-1]), bank)
        nearest = distance.min(1)
        worst = nearest.argmax()
        score = nearest[worst]
        if reweight:
            # eq. 7, with N_b(m*) the b bank patches nearest to m*, itself among them
            neighbors = np.argsort(cdist(bank[[distance[worst].argmin()]], bank)[0], kind="stable")[:4]
            score *= 1 - np.exp(score) / np.exp(distance[worst, neighbors]).sum()
        np.testing.assert_allclose(found.score[i], score, rtol=1e-4)
        size = features.shape[0]
        place = np.clip((np.arange(32) + 0.5) * size / 32 - 0.5, 0, size - 1)
        upsampled = ndimage.map_coordinates(nearest.reshape(size, size), np.meshgrid(place, place, indexing="ij"), order=1)
        np.testing.assert_allclose(found.map[i], ndimage.gaussian_filter(upsampled, 2.0), rtol=1e-4)


def test_training_images_score_zero(images):
    detector = patchcore(BACKBONE, layers=LAYERS, coreset_ratio=1.0)
    found = predict(detector, fitted(detector, images), FROZEN, images)
    np.testing.assert_allclose(found.score, 0, atol=1e-4)


def test_coreset_has_the_size_of_its_ratio_and_rows_of_the_bank(images):
    detector = patchcore(BACKBONE, layers=LAYERS, coreset_ratio=0.13)
    state = fitted(detector, images)
    whole = fitted(patchcore(BACKBONE, layers=LAYERS, coreset_ratio=1.0), images)
    assert len(state.features) == int(0.13 * len(whole.features))
    rows = {row.tobytes() for row in np.asarray(whole.features)}
    assert all(row.tobytes() in rows for row in np.asarray(state.features))


def test_padded_rows_stay_out_of_the_bank(images):
    detector = patchcore(BACKBONE, layers=LAYERS, coreset_ratio=1.0)
    update = jax.jit(phases(detector)[0].update)
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec_for(detector, FROZEN, 5, (32, 32, 3)))
    garbage = np.full((2, 32, 32, 3), 9, np.float32)
    state, _ = update(KEY, state, FROZEN, batch_of(detector, FROZEN, images[:4]))
    last = np.concatenate([images[4:], garbage, garbage[:1]])
    state, info = update(KEY, state, FROZEN, batch_of(detector, FROZEN, last, valid=[True, False, False, False]))
    assert int(state.count) == int(info["bank_images"]) == 5
    np.testing.assert_allclose(state.features, fitted_buffer(detector, images), atol=1e-6)


def fitted_buffer(detector, images):
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec_for(detector, FROZEN, len(images), images.shape[1:]))
    return jax.jit(phases(detector)[0].update)(KEY, state, FROZEN, batch_of(detector, FROZEN, images))[0].features


def test_unfold_embedding_is_the_authors(images):
    # per layer: unfold 3 x 3, resize the deeper patches, adaptive pooling to p; then stacked and pooled to t
    detector = patchcore(
        BACKBONE, layers=LAYERS, embedding="unfold", pretrain_dimension=50, target_dimension=40, coreset_ratio=1.0
    )
    state = fitted(detector, images[:1])
    levels = BACKBONE.features({}, jnp.asarray(images[:1]), LAYERS)
    patches = [np.asarray(ops.unfold(level)) for level in levels]
    patches[1] = np.asarray(ops.resize(jnp.asarray(patches[1]), patches[0].shape[1:3]))

    def pool(x, size):
        n = x.shape[-1]
        return np.stack([x[..., i * n // size : -(-(i + 1) * n // size)].mean(-1) for i in range(size)], -1)

    stacked = np.concatenate([pool(x.astype(np.float64), 50) for x in patches], -1)
    np.testing.assert_allclose(state.features, pool(stacked, 40).reshape(-1, 40), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"embedding": "fold"}, {"coreset_ratio": 0.0}, {"patch_size": 2}, {"num_neighbors": 0}, {"sigma": -1.0}, {"layers": ()}],
)
def test_refuses_options_out_of_range(options):
    with pytest.raises(UserError):
        patchcore(BACKBONE, **{"layers": LAYERS, **options})


def test_score_of_real_hazelnuts(shared, tmp_path):
    import iadjax
    from iadjax.config import base_config

    config = base_config("patchcore", "folder")
    config.data.root = str(shared / "data/hazelnut_toy/hazelnut")
    config.backbone.update({"name": "resnet18", "weights": str(shared / "weights/resnet18_imagenet1k_v1_layer123.safetensors")})
    config.threshold.holdout = 0.0
    config.evaluate.eval_size = 256
    table = iadjax.evaluate(iadjax.fit(config, tmp_path / "run"))["hazelnut"]
    # an independent PyTorch implementation, two seeds: 1.0000, 0.9869 to 0.9871, 0.9408 to 0.9412
    assert table["image_auroc"] == pytest.approx(1.0, abs=0.003)
    assert table["pixel_auroc"] == pytest.approx(0.987, abs=0.003)
    assert table["aupro"] == pytest.approx(0.941, abs=0.003)
