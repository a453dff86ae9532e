"""DevNet: the authors' code."""

import jax.numpy as jnp
import numpy as np

from iadjax import backbones
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.supervised import devnet as module
from tests.parity import harness
from tests.parity.harness import Card

# PyTorch on the card's weights in float64. The card's own loss, in float32, is .08 % off: at the second scale a channel of the
# last stage has two numbers, which BatchNorm makes +1 and -1.
LOSS, GRADIENT = 2.7166630623453845, (15.92754878726036, 12.781268394670231)


def test_authors(monkeypatch):
    card = Card("devnet")
    monkeypatch.setattr(module, "draw_reference", lambda key, number: jnp.asarray(card["input/reference"]))
    backbone = backbones.backbone("resnet18")
    variables = backbones.convert(backbone, card.part("feature_extractor.net."), ("layer4",))
    frozen, image = {"backbone": variables}, card["image"]
    detector = module.devnet(backbone, weight_decay=0.0, clip_norm=1e9)
    state = from_torch("devnet", card.tensors, harness.empty_state(detector, frozen, 64))
    card.check("score", harness.predict(detector, state, frozen, image).score[:, None])
    batch = harness.batch_of(image, label=[0, 1], rotated=image)
    new, info = harness.update(detector, state, frozen, batch, double=True)
    harness.close(info["loss"], card["loss"], 1e-3, "loss of the card")
    harness.close(info["loss"], LOSS, what="loss")
    gradients = harness.gradients(new)
    head = gradients["conv"]["kernel"]
    harness.close([head.sum(), np.linalg.norm(head)], GRADIENT, what="gradient of the head")
    card.check_gradients("devnet", gradients)
