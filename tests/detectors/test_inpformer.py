"""INP-Former: attention to prototypes, soft mining and coherence by hand; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.transformer.inpformer import Decoder, inpformer
from iadjax.errors import UserError
from iadjax.nn.transformer import CrossAttention
from iadjax.synthesis.views import NUM_VIEWS, view
from tests import tiny
from tests.direct import batch_of, phases, spec_for

SMALL = {"layers": ("layer3",), "groups": 1, "depth": 1, "heads": 2, "num_prototypes": 3, "map_size": 0}
IMAGE = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def built(**options):
    backbone = tiny.bank()
    detector = inpformer(backbone, **{**SMALL, **options})
    frozen = {"backbone": {}}
    spec = spec_for(detector, frozen, 4, IMAGE.shape[1:])
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


@pytest.mark.parametrize("cosine", [True, False])
def test_attention_to_other_tokens_by_hand(cosine):
    rng = np.random.default_rng(0)
    x, source = rng.normal(size=(1, 5, 4)), rng.normal(size=(1, 3, 4))
    attention = CrossAttention(2, cosine)
    given = x.astype(np.float32), source.astype(np.float32)
    variables = jax.tree.map(lambda leaf: 60 * leaf, attention.init(jax.random.key(0), *given))
    w = {name: np.asarray(variables["params"][name]["kernel"], np.float64) for name in ("q", "kv", "proj")}
    q, k, v = x[0] @ w["q"], *np.split(source[0] @ w["kv"], 2, axis=1)
    rows = np.zeros((5, 4))
    for head in (slice(0, 2), slice(2, 4)):
        products = q[:, head] @ k[:, head].T
        norms = np.linalg.norm(q[:, head], axis=1)[:, None] * np.linalg.norm(k[:, head], axis=1)
        weights = np.exp(products / 2**0.5)
        # the learned scale is 60 here
        weights = np.maximum(60 * products / norms, 0) if cosine else weights / weights.sum(axis=1, keepdims=True)
        rows[:, head] = weights @ v[:, head]
    np.testing.assert_allclose(attention.apply(variables, *given)[0], rows @ w["proj"], rtol=1e-4, atol=1e-4)


def test_loss_has_the_nearest_prototype_and_weighs_hard_positions():
    detector, frozen, state = built(gamma=0.0, coherence=0.5)
    batch = batch_of(detector, frozen, IMAGE)
    new, info = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    (group,), prototypes = Decoder(3, 1, 2, 0.0).apply(state.variables, batch.features)
    target = np.asarray(batch.features.groups[0], np.float64).reshape(2, -1, 18)
    unit = lambda a: np.asarray(a, np.float64) / np.linalg.norm(a, axis=-1, keepdims=True)  # noqa: E731
    distance = 1 - unit(target) @ unit(prototypes).transpose(0, 2, 1)
    np.testing.assert_allclose(info["loss_coherence"], distance.min(axis=2).mean(), rtol=1e-4)
    flat = [unit(each.reshape(2, -1)) for each in (target, group)]
    np.testing.assert_allclose(info["loss_mining"], np.mean(1 - np.sum(flat[0] * flat[1], axis=1)), rtol=1e-4)
    np.testing.assert_allclose(info["loss"], info["loss_mining"] + 0.5 * info["loss_coherence"], rtol=1e-5)
    # the values are those without the weights, the gradients are not; all distances are near 1 here, so a large power is needed
    hard, seen = jax.jit(phases(built(gamma=100.0, coherence=0.5)[0])[0].update)(jax.random.key(0), state, frozen, batch)
    np.testing.assert_allclose(seen["loss"], info["loss"], rtol=1e-6)
    plain, mined = (each.optimizer[-1].mu["decoder_0"]["mlp"]["fc2"]["kernel"] for each in (new, hard))
    assert np.linalg.norm(plain - mined) > 0.05 * np.linalg.norm(plain)


def test_views_are_embedded_in_place_of_the_images():
    detector, frozen, state = built(views=True)
    phase = phases(detector)[0]
    drawn = [phase.augment(np.random.default_rng(i), IMAGE[0], None)["view"] for i in range(40)]
    known = [view(IMAGE[0], i).tobytes() for i in range(NUM_VIEWS)]
    assert len({known.index(each.tobytes()) for each in drawn}) > 10
    batch = batch_of(detector, frozen, IMAGE)
    update = jax.jit(phase.update)
    same, shown = update(jax.random.key(0), state, frozen, batch._replace(extra={"view": jnp.asarray(IMAGE)}))
    _, other = update(jax.random.key(0), state, frozen, batch._replace(extra={"view": jnp.asarray(IMAGE[:, ::-1])}))
    _, expected = jax.jit(phases(built()[0])[0].update)(jax.random.key(0), state, frozen, batch)
    np.testing.assert_allclose(shown["loss"], expected["loss"], rtol=1e-5)
    assert abs(float(other["loss"] - shown["loss"])) > 1e-7


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_prototypes": 0}, "detector.num_prototypes must be at least 1"),
        ({"groups": 2}, "detector.groups must divide"),
        ({"heads": 4}, "detector.heads=4 does not divide the 18 channels"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        built(**options)
