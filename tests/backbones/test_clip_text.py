"""CLIP's text tower and tokenizer against the code of Hugging Face and open_clip (cards)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.clip_text import TEXT_SPECS, TextSpec, clip_text
from iadjax.backbones.tokenizer import tokenize
from iadjax.errors import UserError
from tests.parity.harness import Card, close

SMALL = TextSpec(24, 2, 2, 16, "quick_gelu", "", context=8, vocabulary=50)


@pytest.mark.parametrize("name,mlp", [("clip_hugging_face", "quick_gelu"), ("open_clip", "gelu")])
def test_embeddings_equal_the_authors_code(monkeypatch, name, mlp):
    monkeypatch.setitem(TEXT_SPECS, "card", SMALL._replace(mlp=mlp))
    card, tower = Card(name), clip_text("card")
    variables = backbones.convert(tower, card.tensors, tower.layers)
    card.check("text", tower.features(variables, card.arrays["ids"]))


def test_prompts_take_the_place_of_tokens(monkeypatch):
    monkeypatch.setitem(TEXT_SPECS, "card", SMALL)
    tower = clip_text("card")
    variables = tower.init(jax.random.key(0), tower.layers)
    ids = jnp.asarray([[48, 3, 5, 7, 49, 0, 0, 0]])
    table = variables["params"]["token_embedding"]
    plain = tower.features(variables, ids)
    same = tower.features(variables, ids.at[:, 1:3].set(9), table[ids[:, 1:3]])
    close(same, plain, 1e-6)
    deep = tower.features(variables, ids, deep=(jnp.ones((2, 24)),))
    other = tower.features(variables, ids.at[:, 1:3].set(9), deep=(jnp.ones((2, 24)),))
    # what the first block did to tokens 1 and 2 is gone; that they were seen by those behind them is not
    assert not np.allclose(deep, plain, atol=1e-3)
    assert not np.allclose(deep, other, atol=1e-6)


def test_tokens_equal_open_clips():
    with open(Path(__file__).parents[1] / "parity" / "cards" / "clip_tokens.json", encoding="utf-8") as file:
        card = json.load(file)["ids"]
    ids = tokenize(list(card))
    assert ids.shape == (len(card), 77) and ids.dtype == np.int32
    for row, expected in zip(ids, card.values(), strict=True):
        assert list(row[: len(expected)]) == expected and not row[len(expected) :].any()


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="reads 77 tokens, and 'a a.*has 102; shorten it"):
        tokenize(["a " * 100])


def test_towers_have_the_published_sizes():
    for name, count in {"clip_vitl14_336_text": 123650304, "clip_vitb16_text": 63428096}.items():
        tower = backbones.backbone(name)
        shapes = jax.eval_shape(lambda key, t=tower: t.init(key, t.layers), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_a_file_without_the_text_tower_is_refused(monkeypatch):
    monkeypatch.setitem(TEXT_SPECS, "card", SMALL)
    tensors = {name: tensor for name, tensor in Card("open_clip").tensors.items() if name.startswith("visual.")}
    with pytest.raises(UserError, match="does not hold the weights of card: missing blocks.0.attn.proj.bias"):
        backbones.convert(clip_text("card"), tensors, ("embedding",))
