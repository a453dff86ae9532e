"""AnomalyCLIP: the authors' code (card). Prompts come as embeddings there, so each gets a token of its own in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.clip_text import TEXT_SPECS, TextSpec
from iadjax.backbones.vit import SPECS, Spec
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.zero_shot import anomalyclip as module
from tests.direct import spec_for
from tests.parity import harness
from tests.parity.harness import Card

IMAGES = Spec(
    14, 128, 6, 2, 3, 0, False, False, "", "bilinear", "quick_gelu", eps=1e-5, embedding=32, value_from=4, pixels="clip"
)
TOKENS, LENGTH = 12, 64


@pytest.fixture
def case(monkeypatch):
    """The card, the detector, its networks and its state."""
    monkeypatch.setitem(SPECS, "card", IMAGES)
    monkeypatch.setitem(TEXT_SPECS, "card_text", TextSpec(LENGTH, 4, 2, 32, "quick_gelu", "", TOKENS, 2 * TOKENS))
    card = Card("anomalyclip")
    prompts, ends = card["input/prompts"], card.arrays["input/token_ids"].argmax(axis=1)
    # the end's id is the largest one
    ids = np.stack([TOKENS * i + (np.arange(TOKENS) - end - 1) % TOKENS for i, end in enumerate(ends)]).astype(np.int32)
    monkeypatch.setattr(module, "prompt_ids", lambda length: ids)
    table = np.zeros((2 * TOKENS, LENGTH), np.float32)
    table[ids] = prompts
    images, text = backbones.backbone("card"), backbones.backbone("card_text")
    tensors = card.tensors | {"token_embedding.weight": table}
    frozen = {
        name: backbones.convert(network, tensors, network.layers) for name, network in (("backbone", images), ("text", text))
    }
    detector = module.anomalyclip(images, text, blocks=(2, 4, 6), prompt_length=TOKENS - 1, depth=3, deep_length=3, sigma=0.0)
    state = detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 2, (56, 56, 3)))
    learned = {"ctx_pos": prompts[None, None, 0, 1:], "ctx_neg": prompts[None, None, 1, 1:]}
    learned |= {f"compound_prompts_text.{i}": card[f"input/compound_prompt{i}"] for i in (0, 1)}
    unused = {"compound_prompt_projections.0.weight": np.zeros((896, LENGTH)), "token_prefix_pos": np.zeros((1, 1, 1, LENGTH))}
    return card, detector, frozen, from_torch("anomalyclip", learned | unused, state)


def test_authors(case):
    card, detector, frozen, state = case
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("score", found.score)
    card.check("map", found.map)


def test_authors_loss_and_gradient(case):
    card, detector, frozen, state = case
    batch = harness.batch_of(card["image"], label=[0, 1])._replace(mask=card["input/mask"].astype(np.uint8))
    _, info = harness.update(detector, state, frozen, batch, double=True)
    for ours, theirs in (("loss", "loss"), ("image_loss", "loss_image"), ("pixel_loss", "loss_pixel")):
        harness.close(info[ours], card[theirs], what=theirs)
    batch = batch._replace(features=jax.jit(detector.embed)(frozen, batch.image))
    (phase,) = detector.phases(spec_for(detector, frozen, 2, (56, 56, 3)))

    def loss(params, table):
        text = {"params": {**frozen["text"]["params"], "token_embedding": table}}
        changed = state._replace(variables={"params": params})
        return phase.update(jax.random.key(0), changed, {**frozen, "text": text}, batch)[1]["loss"]

    table = frozen["text"]["params"]["token_embedding"]
    learned, first = jax.jit(jax.grad(loss, (0, 1)))(state.variables["params"], table)
    # of the learned tokens, and of the first ones, which stay in the table
    parts = [learned["ctx_pos"], learned["ctx_neg"], first]
    total, norm = card["grad/prompts"]
    harness.report("norm", abs(np.sqrt(sum(jnp.sum(part**2) for part in parts)) - norm) / norm, harness.GRADIENT)
    harness.report("sum", abs(sum(jnp.sum(part) for part in parts) - total) / (norm * (2 * TOKENS * LENGTH) ** 0.5), 1e-3)
