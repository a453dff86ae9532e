"""CutPaste: the re-implementation of Runinho (there is no code of the authors)."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import backbones
from iadjax.detectors.families.shrinkage import ledoit_wolf
from iadjax.detectors.one_class.cutpaste import Density, cutpaste
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_reimplementation():
    card = Card("cutpaste")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("resnet18."), ("layer4",))}
    detector = cutpaste(backbone, steps=10, weight_decay=0.0, normalize=False)
    state = from_torch("cutpaste", card.tensors, harness.empty_state(detector, frozen, 64))
    views = np.stack([card["image"], card["image_1"], card["image_2"]])
    # with one axis as the factor a distance is the size of a number of the representation
    embedding = card["out/embedding"].reshape(-1)
    batch = harness.batch_of(card["image"], views=views.swapaxes(0, 1))
    new, info = harness.update(detector, state, frozen, batch, finalize=False)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("cutpaste", harness.gradients(new))
    # in prediction: the distance to the origin is the norm of the representation, of which the card has the sum of squares
    origin = Density(state.variables, jnp.zeros(512), jnp.eye(512))
    found = harness.predict(detector, origin, frozen, views.reshape(-1, 64, 64, 3))
    facts = card.about["outputs"]["embedding"]
    harness.close(np.linalg.norm(found.score), facts["norm"], what="embedding")
    assert len(embedding) == -(-np.prod(facts["shape"]) // facts["step"])


def test_density():
    card = Card("cutpaste")
    fit, test = card["input/fit_embeddings"].astype(np.float64), card["input/test_embeddings"]
    precision = np.linalg.inv(ledoit_wolf(fit - fit.mean(axis=0)))
    card.check("ledoitwolf_precision", precision)
    factor = jnp.asarray(np.linalg.cholesky(precision).T, jnp.float32)
    mean = jnp.asarray(fit.mean(axis=0), jnp.float32)
    card.check("density_score", jax.numpy.linalg.norm((test - mean[None]) @ factor.T, axis=1))
