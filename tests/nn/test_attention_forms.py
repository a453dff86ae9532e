"""Attention head by head, and in parts of the queries, against the formula in float64."""

import jax
import numpy as np
import pytest

from iadjax.nn import attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("small,budget", [(2**21, 2**25), (0, 2**25), (0, 70 * 90 * 4 // 3)])
def test_attend(monkeypatch, masked, small, budget):
    monkeypatch.setattr(attention, "SMALL_BYTES", small)
    monkeypatch.setattr(attention, "LOGITS_BYTES", budget)
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 70, 3, 8), np.float32)
    k, v = rng.standard_normal((2, 2, 90, 3, 8), np.float32)
    mask = rng.random((70, 90)) < 0.5 if masked else None
    logits = np.einsum("bqhd,bkhd->bhqk", *(x.astype(np.float64) for x in (q, k))) / 8**0.5
    logits = np.where(mask[None, None], logits, -np.inf) if masked else logits
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    truth = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(jax.jit(attention.attend)(q, k, v, mask), truth, atol=1e-5)


def test_the_logits_of_all_heads_are_never_in_memory(monkeypatch):
    """The largest array of the compiled function is within the budget: here a third of one head's logits."""
    monkeypatch.setattr(attention, "LOGITS_BYTES", 2**18)
    x = jax.ShapeDtypeStruct((2, 400, 6, 16), np.float32)
    memory = jax.jit(attention.attend).lower(x, x, x).compile().memory_analysis()
    # queries, keys and values in another order, and the output, are 4 arrays of the input's size
    assert memory.temp_size_in_bytes < 6 * 2 * 400 * 6 * 16 * 4 + 4 * 2**18
    assert memory.temp_size_in_bytes < 2 * 6 * 400 * 400 * 4 / 2
