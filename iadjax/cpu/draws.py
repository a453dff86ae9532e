"""Random draws of a function, made together: XLA:CPU compiles each one by itself, and a network has a hundred of them."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params
from jax.extend.core.primitives import jit_p, random_bits_p, random_fold_in_p
from jax.extend.random import threefry2x32_p

__all__ = ["draw_together"]

_LIMIT = 1 << 22
"""Numbers drawn together at most: what the draws of large networks take in memory is bounded so."""

_ROW = 256
"""A draw takes whole rows of this length."""


class _Step(NamedTuple):
    """An operation of the function; each value has a number.

    Attributes:
      eqn: the operation and its parameters.
      inputs: numbers, or `Literal`s.
      outputs: numbers.
    """

    eqn: Any
    inputs: list[Any]
    outputs: list[int]


def draw_together(function: Callable) -> Callable:
    """The same function with the same draws to the bit, compiled as few operations.

    It traces the function (JAX's documentation: "Custom interpreters"), leaves out what no result needs, and makes all draws
    at once whose keys are known. Keys of another kind than "threefry2x32" are drawn from one by one.

    Args:
      function: of arrays, to be called under `jax.jit`.
    """

    @functools.wraps(function)
    def together(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        numbers, known = itertools.count(), {}
        names = {var: next(numbers) for var in closed.jaxpr.invars}
        known |= dict(zip(names.values(), jax.tree.leaves(args), strict=True))
        steps = list(_steps(closed, names, numbers, known))
        results = [var if isinstance(var, Literal) else names[var] for var in closed.jaxpr.outvars]
        _evaluate(_needed(steps, results), known)
        leaves = [result.val if isinstance(result, Literal) else known[result] for result in results]
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return together


def _steps(closed: Any, names: dict[Any, Any], numbers: Iterator[int], known: dict[int, Any]) -> Iterator[_Step]:
    """The operations of a function and of the compiled functions that draw inside it. `names` gives variables their numbers;
    constants go to `known`."""
    for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        names[var] = next(numbers)
        known[names[var]] = value
    for eqn in closed.jaxpr.eqns:
        inputs = [var if isinstance(var, Literal) else names[var] for var in eqn.invars]
        if eqn.primitive is jit_p and _draws(eqn.params["jaxpr"].jaxpr):
            inner = eqn.params["jaxpr"]
            within = dict(zip(inner.jaxpr.invars, inputs, strict=True))
            yield from _steps(inner, within, numbers, known)
            outputs = [var if isinstance(var, Literal) else within[var] for var in inner.jaxpr.outvars]
            names |= dict(zip(eqn.outvars, outputs, strict=True))
        else:
            names |= {var: next(numbers) for var in eqn.outvars}
            yield _Step(eqn, inputs, [names[var] for var in eqn.outvars])


def _draws(jaxpr: Jaxpr) -> bool:
    """Whether a function draws or derives keys."""
    inner = (each for eqn in jaxpr.eqns for each in jaxprs_in_params(eqn.params))
    return any(eqn.primitive in (random_bits_p, random_fold_in_p) for eqn in jaxpr.eqns) or any(map(_draws, inner))


def _needed(steps: list[_Step], results: list[Any]) -> list[_Step]:
    """The steps on which the results depend, in their order."""
    wanted, kept = set(each for each in results if not isinstance(each, Literal)), []
    for step in reversed(steps):
        if wanted.intersection(step.outputs) or step.eqn.effects:
            kept.append(step)
            wanted.update(each for each in step.inputs if not isinstance(each, Literal))
    return kept[::-1]


def _evaluate(steps: list[_Step], known: dict[int, Any]) -> None:
    """Computes what the steps give into `known`; in each pass all draws whose keys are known."""

    def value(each):
        return each.val if isinstance(each, Literal) else known[each]

    while steps:
        later, folds, draws = [], [], []
        for step in steps:
            if not all(isinstance(each, Literal) or each in known for each in step.inputs):
                later.append(step)
                continue
            inputs = [value(each) for each in step.inputs]
            kind = step.eqn.primitive
            if kind is random_fold_in_p and not np.shape(inputs[0]) and not np.shape(inputs[1]):
                folds.append((step, inputs))
            elif kind is random_bits_p and _joinable(step.eqn, inputs[0]):
                draws.append((step, inputs))
            else:
                outputs = kind.bind(*inputs, **kind.get_bind_params(step.eqn.params))
                known.update(zip(step.outputs, outputs if kind.multiple_results else [outputs], strict=True))
        if folds:
            keys = jnp.stack([key for _, (key, _) in folds])
            folded = jax.vmap(jax.random.fold_in)(keys, jnp.stack([jnp.asarray(data, jnp.uint32) for _, (_, data) in folds]))
            known.update((step.outputs[0], folded[i]) for i, (step, _) in enumerate(folds))
        for batch in _batches(draws):
            bits = _bits([key for _, (key,) in batch], [step.eqn.params["shape"] for step, _ in batch])
            known.update((step.outputs[0], each) for (step, _), each in zip(batch, bits, strict=True))
        steps = later


def _joinable(eqn: Any, key: jax.Array) -> bool:
    """Whether `_bits` can make a draw."""
    plain = str(jax.random.key_impl(key)) == "threefry2x32" and jax.config.jax_threefry_partitionable
    return plain and not key.shape and eqn.params["bit_width"] == 32 and 0 < math.prod(eqn.params["shape"]) <= _LIMIT


def _batches(draws: list) -> Iterator[list]:
    """The draws in groups of at most `_LIMIT` numbers."""
    batch, size = [], 0
    for step, inputs in draws:
        more = math.prod(step.eqn.params["shape"])
        if batch and size + more > _LIMIT:
            yield batch
            batch, size = [], 0
        batch.append((step, inputs))
        size += more
    if batch:
        yield batch


def _bits(keys: list[jax.Array], shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    """`jax.random.bits(key, shape)` of each key: number i is Threefry of the key and the counter (0, i), its words joined."""
    sizes = [math.prod(shape) for shape in shapes]
    # tables of rows are small
    rows = [-(-size // _ROW) for size in sizes]
    owner = np.repeat(np.arange(len(rows)), rows)
    first = np.concatenate([np.arange(row, dtype=np.uint32) * _ROW for row in rows])
    # behind a barrier, or XLA computes the counters while it compiles
    first = jax.lax.optimization_barrier(jnp.asarray(first))
    counter = first[:, None] + jnp.arange(_ROW, dtype=jnp.uint32)[None]
    words = jnp.broadcast_to(jax.random.key_data(jnp.stack(keys))[owner][:, None], (*counter.shape, 2))
    high, low = threefry2x32_p.bind(words[..., 0], words[..., 1], jnp.zeros_like(counter), counter)
    both, starts = (high ^ low).ravel(), np.cumsum([0, *rows]) * _ROW
    return [both[start : start + size].reshape(shape) for start, size, shape in zip(starts, sizes, shapes, strict=False)]
