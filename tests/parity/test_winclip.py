"""WinCLIP: anomalib (card), whose prompts are another list and whose means are of raw embeddings.

anomalib swaps the axes of a window's tokens before the transformer, as open_clip once wanted. Now attention runs
over all windows of all images at one position, instead of over the tokens of one window; so its maps depend on the batch.
The card shows it. `swapped` repeats it, so that everything else is compared; `test_vit_parity.py` has the windows as they
should be.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.backbone import normalize
from iadjax.backbones.clip_text import TEXT_SPECS, TextSpec
from iadjax.backbones.vit import SPECS, Block, Spec
from iadjax.detectors.zero_shot import winclip as module
from tests.direct import spec_for
from tests.parity import harness
from tests.parity.harness import Card

IMAGES = Spec(16, 64, 2, 2, 4, 0, False, False, "", "antialias", eps=1e-5, embedding=32, pixels="clip")


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setitem(SPECS, "card", IMAGES)
    monkeypatch.setitem(TEXT_SPECS, "card_text", TextSpec(64, 2, 2, 32, "gelu", ""))
    card = Card("anomalib_winclip")
    ids = {kind: card.arrays[f"tokens_{kind}"].astype(np.int32) for kind in ("normal", "anomalous")}
    monkeypatch.setattr(module, "prompts", lambda name: ("normal", "anomalous"))
    monkeypatch.setattr(module, "tokenize", ids.__getitem__)
    return card


def swapped(features, variables, image, layers):
    """The backbone's features with windows as anomalib has them: attention over windows and images, position by position."""
    params = variables["params"]
    norm = lambda name, x: nn.LayerNorm(1e-5).apply({"params": params[name]}, x)  # noqa: E731
    pixels = normalize(jnp.asarray(image), "clip").reshape(len(image), 4, 16, 4, 16, 3)
    patches = jnp.einsum("biyjxc,yxcd->bijd", pixels, params["patch_embed_proj"]["kernel"]).reshape(len(image), 16, 64)
    first = jnp.broadcast_to(params["cls_token"], (len(image), 1, 64))
    x = norm("norm_pre", jnp.concatenate([first, patches], axis=1) + params["pos_embed"])
    found = dict(zip(layers, features(variables, image, layers), strict=True))
    for side in (2, 3):
        corners = [(i, j) for i in range(5 - side) for j in range(5 - side)]
        rows = [[0, *(1 + 4 * (i + y) + j + k for y in range(side) for k in range(side))] for i, j in corners]
        # one window of every image after the other
        tokens = jnp.concatenate([x[:, jnp.asarray(row)] for row in rows]).swapaxes(0, 1)
        for i in range(2):
            tokens = Block(IMAGES).apply({"params": params[f"blocks_{i}"]}, tokens)
        y = norm("norm", tokens[0]) @ params["proj"]
        found[f"windows{side}"] = y.reshape(len(rows), len(image), -1).swapaxes(0, 1).reshape(-1, 5 - side, 5 - side, 32)
    return tuple(found[layer] for layer in layers)


def test_anomalib(card):
    backbone, text = backbones.backbone("card"), backbones.backbone("card_text")
    tensors = card.part("clip.")
    frozen = {
        name: backbones.convert(network, tensors, network.layers) for name, network in (("backbone", backbone), ("text", text))
    }
    backbone = backbone._replace(features=functools.partial(swapped, backbone.features))
    detector = module.winclip(backbone, text, normalize_prompts=False)
    state = detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 0, (64, 64, 3)))
    theirs = card["text_embeddings"]
    harness.close(state.text[0], theirs / np.linalg.norm(theirs, axis=1, keepdims=True), what="text")
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
    state = detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 2, (64, 64, 3)))
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"][:2]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score_2shot"], what="score_2shot")
    harness.close(found.map, card["map_2shot"], what="map_2shot")
