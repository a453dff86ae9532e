"""UniAD: the authors' code, from features onwards (the card has no backbone)."""

import jax.numpy as jnp

from iadjax.backbones import Backbone
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer import uniad as module
from tests.parity import harness
from tests.parity.harness import Card


def test_authors(monkeypatch):
    card = Card("uniad")
    features = jnp.asarray(card["input/features"]).transpose(0, 2, 3, 1)
    noise = jnp.asarray(card["input/jitter"]).transpose(1, 0, 2).reshape(features.shape)

    def jitter(key, x, scale, probability):
        return x + noise * jnp.linalg.norm(x, axis=-1, keepdims=True) / x.shape[-1] * scale

    monkeypatch.setattr(module, "jitter", jitter)
    backbone = Backbone("given", ("features",), lambda key, layers: {}, lambda variables, image, layers: (features,))
    options = {"layers": ("features",), "stride": 8, "hidden": 16, "heads": 4, "width": 32, "neighbor_size": 3}
    options |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.0, "clip_norm": 1e9}
    detector, frozen = module.uniad(backbone, **options), {"backbone": {}}
    state = from_torch("uniad", card.tensors, harness.empty_state(detector, frozen, 48))
    image = jnp.zeros((2, 48, 48, 3))
    found = harness.predict(detector, state, frozen, image)
    card.check("map", found.map[:, None])
    card.check("score", found.score)
    new, info = harness.update(detector, state, frozen, harness.batch_of(image))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("uniad", harness.gradients(new))
