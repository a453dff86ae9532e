"""PNI: the authors' code, whose network sees the patch itself in place of the one behind it.

In the card the two coresets are one, where the authors' masks, which mix up ranks and rows, are right.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax.detectors.memory_bank.pni import Fitted, pni
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.neighborhood import Neighborhood
from tests.parity import harness
from tests.parity.harness import Card


def test_authors():
    card = Card("pni")
    levels = [card[f"input/layer{i}"].transpose(0, 2, 3, 1) for i in (2, 3)]
    backbone, frozen = harness.given(levels)
    sizes = {"patch_size": 3, "pretrain_dimension": 12, "target_dimension": 12, "distribution_size": 10, "mlp_layers": 3}
    detector = pni(backbone, layers=backbone.layers, **sizes, reach=1, skip_next=True, sigma=2.0, refine_steps=0)
    filling = harness.empty_state(detector, frozen, 24, images=1)
    coreset, position = card["input/dist_coreset"], card["input/position_histogram"].reshape(6, 6, 10)
    state = Fitted(coreset, coreset, np.arange(10, dtype=np.int32), position, np.float32(1), *filling[1:])
    state = from_torch("pni", card.tensors, state)
    image = np.zeros((1, 24, 24, 3), np.float32)
    features = jax.jit(detector.embed)(frozen, image)
    card.check("embedding", np.asarray(features).reshape(36, 12))
    found = harness.predict(detector, state, frozen, image)
    card.check("map_nb_coor", found.map[0])
    card.check("score_nb_coor", found.score)

    network = Neighborhood(10, 3, 2048, 0.0, 1, 0, True)
    variables = state.neighborhood.variables
    card.check("logits", jax.jit(network.apply)(variables, features).reshape(36, 10))

    def loss(params):
        model = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, _ = network.apply(model, features, jnp.ones(1, bool), mutable="batch_stats")
        targets = card["input/targets"].astype(np.int32)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits.reshape(36, 10), targets).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
    harness.close(value, card["loss"], what="loss")
    # the card's gradient has no row for the neighbour that the authors leave out; ours is zero there
    assert not np.any(gradients["first_layer_0"]["kernel"][1, 2])
    for name, ours in (("first_layer.0.weight", "first_layer_0/kernel"), ("last_layer.0.bias", "last_layer_0/bias")):
        layer, leaf = ours.split("/")
        mine = np.asarray(gradients[layer][leaf], np.float64)
        total, norm = card[f"grad/dist.{name}"]
        harness.report(name, abs(np.linalg.norm(mine) - norm) / norm, harness.GRADIENT)
        harness.report(f"{name} sum", abs(mine.sum() - total) / (norm * mine.size**0.5), harness.GRADIENT)
