"""DifferNet: the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import backbones
from iadjax.backbones.backbone import IMAGENET_STD
from iadjax.detectors.distribution.differnet import Flow, differnet
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_authors():
    card = Card("differnet")
    backbone = backbones.backbone("alexnet")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor."), ("features.12",))}
    options = {"coupling_blocks": 3, "hidden": 64, "weight_decay": 0.0, "train_rotations": 1, "rotations": 1, "sigma": 0.0}
    detector = differnet(backbone, **options)
    state = from_torch("differnet", card.tensors, harness.empty_state(detector, frozen, 256))
    for k in range(3):
        drawn = state.variables["constants"][f"module_list_{2 * k + 1}"]["permutation_0"]
        np.testing.assert_array_equal(drawn, card[f"tensor/perm_{k}"])
    batch = harness.batch_of(card["image"], degrees=np.zeros((2, 1), np.float32))
    # one rotation by 0 degrees: the score of a view, and the root of the map is the mean magnitude of its gradients
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("score_per_view", found.score)
    new, info = harness.update(detector, state, frozen, batch)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("differnet", harness.gradients(new, 0.8))

    def nll(image):
        features = jnp.concatenate(
            [
                jnp.mean(backbone.features(frozen["backbone"], image[:, :: 2**s, :: 2**s], ("features.12",))[0], axis=(1, 2))
                for s in range(3)
            ],
            axis=-1,
        )
        z, log_det = Flow(3, 64, 3.0).apply(state.variables, features)
        return jnp.mean(0.5 * jnp.sum(z**2, axis=1) - log_det) / z.shape[-1], (features, z, log_det)

    gradient, (features, z, log_det) = jax.jit(jax.grad(nll, has_aux=True))(jnp.asarray(card["image"]))
    card.check("features", features)
    card.check("z", z)
    card.check("logdet", log_det)
    gradient = np.asarray(gradient) * np.asarray(IMAGENET_STD, np.float32)
    card.check("input_gradient", harness.nchw(gradient), 1e-3)
    # theirs is the gradient of the mean over two images
    harness.close(np.sqrt(found.map), 2 * np.abs(gradient).mean(axis=-1), what="map")
