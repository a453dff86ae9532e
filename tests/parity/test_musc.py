"""MuSc: the authors' aggregation, mutual scores and re-scoring of given tokens."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone, plain_features
from iadjax.detectors.zero_shot.musc import musc, rescore
from tests.direct import batch_of, spec_for
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("tokens0", "tokens1", "cls")


def given(variables, image, layers):
    """The stored tokens of the image whose number is its first pixel."""
    number = image[:, 0, 0, 0].astype(jnp.int32)
    return tuple(variables[layer][number] for layer in layers)


def test_authors():
    card = Card("musc")
    backbone = Backbone("given", LAYERS, lambda key, layers: {}, plain_features(given))
    # the class token comes first
    tokens = {layer: jnp.asarray(card[f"input/{layer}"][:, 1:].reshape(9, 5, 5, 12)) for layer in LAYERS[:2]}
    frozen = {"backbone": tokens | {"cls": jnp.asarray(card["input/cls"])}}
    detector = musc(backbone, layers=LAYERS[:2], class_layer="cls")
    images = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None, None, None], (9, 30, 30, 3))
    spec = spec_for(detector, frozen, 9, (30, 30, 3))
    state, (phase,) = detector.init(jax.random.key(0), frozen, spec), detector.phases(spec)
    order = np.random.default_rng(0).permutation(9)
    for part in (order[:4], order[4:8], order[[8, 0, 1, 2]]):
        batch = batch_of(detector, frozen, images[part], valid=[True] + [len(set(part) & {order[8]}) == 0] * 3)
        state, _ = jax.jit(phase.update)(None, state, frozen, batch._replace(index=part.astype(np.int32)))
    state = phase.finalize(None, state, frozen)
    found = jax.jit(detector.predict)(state, frozen, batch_of(detector, frozen, images))
    card.check("map", np.asarray(found.map)[:, None])
    harness.close(found.score, card["out/score"], what="score")
    harness.close(state.largest, card["out/score_raw"], what="score_raw")
    # the card's third scores are those of one and eight images
    scaled = (state.largest - state.largest.min()) / np.ptp(state.largest)
    similarity = np.asarray(state.descriptors) @ np.asarray(state.descriptors).T
    harness.close(rescore(scaled, similarity, (1, 8)), card["out/score_visa"], what="score_visa")
