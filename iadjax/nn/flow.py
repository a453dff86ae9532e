"""Invertible layers of normalising flows: affine couplings of one array or of several levels at once.

Every layer maps x to (y, log |det dy/dx|), and with `inverse=True` y to (x, log |det dx/dy|). Logarithms of determinants are
sums over everything but the first axis. So a map `[B, h, w, C]` has one for each image, and positions as rows `[N, C]` have
one for each position.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.nn.layers import Conv, linear
from iadjax.ops import per_channel

__all__ = [
    "AllInOneBlock", "LevelCoupling", "Permutation", "affine", "atan_clamp", "chain", "convolutions", "dense",
    "position_code", "position_codes", "repeated",
]  # fmt: skip


def affine(
    x: jax.Array, s: jax.Array, t: jax.Array, inverse: bool = False, by_position: bool = False
) -> tuple[jax.Array, jax.Array]:
    """y = x exp(s) + t, or x = (y - t) exp(-s), with log |det| of this direction; all arrays are `[B, ..., C]`.

    It is `[B]`, or `by_position` the part of each position `[B, ...]`, the sum over channels alone.
    """
    log_det = jnp.sum(s, axis=-1 if by_position else tuple(range(1, s.ndim)))
    if inverse:
        return (x - t) * jnp.exp(-s), -log_det
    return x * jnp.exp(s) + t, log_det


def atan_clamp(a: jax.Array, clamp: float) -> jax.Array:
    """A log scale between -clamp and clamp: 0.636 clamp atan(a / clamp), where 0.636 stands for 2 / pi (FrEIA's couplings)."""
    return clamp * 0.636 * jnp.arctan(a / clamp)


def chain(blocks: Sequence[Callable], x, *condition, inverse: bool = False):
    """Layers one after the other, or back: (what comes out, the sum of their log |det|).

    Args:
      blocks: each `(x, *condition, inverse=...) -> (x, log_det)`.
      x: an array or levels, as the layers take it.
      condition: further arguments of every layer.
      inverse: from the last layer to the first.
    """
    total = 0.0
    for block in blocks[::-1] if inverse else blocks:
        x, log_det = block(x, *condition, inverse=inverse)
        total += log_det
    return x, total


def repeated(
    blocks: Sequence[nn.Module], variables: Sequence[Any], x: jax.Array, *, period: int = 1, inverse: bool = False
) -> tuple[jax.Array, jax.Array]:
    """`chain` as a loop, of which one step is compiled: a compiler for TPUs takes seconds for every convolution.

    Args:
      blocks: unbound layers; each is the same as the one `period` places before it.
      variables: of each.
      x: `[B, ..., C]`.
      period: layers of one step; those that are left over come last, outside the loop.
      inverse: from the last layer to the first.

    Returns:
      What comes out, and the sum of their log |det|, `[B]`.
    """
    looped = len(blocks) // period * period
    rest = range(looped, len(blocks))
    layers = [jax.tree.map(lambda *each: jnp.stack(each), *variables[i:looped:period]) for i in range(min(period, looped))]

    def one(carry, number, layer):
        x, total = carry
        x, log_det = blocks[number].apply(layer, x, inverse=inverse)
        return x, total + log_det

    def step(carry, layers):
        for number in range(period)[::-1] if inverse else range(period):
            carry = one(carry, number, layers[number])
        return carry, None

    carry = x, jnp.zeros(len(x), x.dtype)
    if inverse:
        for number in rest[::-1]:
            carry = one(carry, number, variables[number])
    if looped:
        carry, _ = jax.lax.scan(step, carry, layers, reverse=inverse)
    if not inverse:
        for number in rest:
            carry = one(carry, number, variables[number])
    return carry


def convolutions(kernel: int = 3, hidden_ratio: float = 1.0, norm: bool = False) -> Callable[[int, int], Callable]:
    """Networks of couplings on maps: two convolutions with a ReLU between them.

    Args:
      kernel: of both convolutions.
      hidden_ratio: channels between them, as a multiple of those that go in.
      norm: a LayerNorm over channels before the ReLU.
    """

    def build(enter: int, leave: int) -> Callable:
        first = Conv(max(1, int(enter * hidden_ratio)), kernel, name="subnet_0")
        last = Conv(leave, kernel, name="subnet_2")
        between = nn.LayerNorm(1e-5, name="subnet_1") if norm else lambda x: x
        return lambda x: last(nn.relu(between(first(x))))

    return build


def dense(hidden_ratio: float = 2.0) -> Callable[[int, int], Callable]:
    """Networks of couplings on rows: two linear layers with a ReLU between them; `hidden_ratio` as that of `convolutions`."""

    def build(enter: int, leave: int) -> Callable:
        hidden = max(1, int(enter * hidden_ratio))
        first, last = linear(hidden, enter, "subnet_0"), linear(leave, hidden, "subnet_2")
        return lambda x: last(nn.relu(first(x)))

    return build


def position_code(depth: int, height: int, width: int) -> np.ndarray:
    """Sines and cosines of each position, which condition a flow on it (CFLOW's and MSFlow's authors).

    The first half of the channels codes the column, the second the row: (sin(p w), cos(p w)) for each frequency
    w = 10^(-4 i / (depth / 2)), i = 0, 2, 4, ...

    Args:
      depth: channels, a multiple of 4.
      height, width: of the grid.

    Returns:
      `[height, width, depth]` float32.
    """
    half = depth // 2
    frequency = 10.0 ** (-4 * np.arange(0, half, 2) / half)

    def waves(number):
        angle = np.arange(number)[:, None] * frequency
        return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(number, half)

    shape = (height, width, half)
    columns, rows = np.broadcast_to(waves(width)[None], shape), np.broadcast_to(waves(height)[:, None], shape)
    return np.concatenate([columns, rows], axis=-1).astype(np.float32)


def position_codes(x: jax.Array, depth: int) -> jax.Array:
    """`position_code` of the grid of every image of `[B, h, w, C]`, `[B, h, w, depth]` in its dtype."""
    code = jnp.asarray(position_code(depth, *x.shape[1:3]), x.dtype)
    return jnp.broadcast_to(code, (len(x), *code.shape))


class Permutation(nn.Module):
    """A fixed permutation of the channels of every level, or a fixed rotation of their space (a soft one); |det| = 1.

    Attributes:
      soft: whether it is a rotation.
    """

    soft: bool = False

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], inverse: bool = False) -> tuple[list[jax.Array], float]:
        """Levels `[B, ..., C]` to levels of the same shapes, and 0."""
        kind = "rotation" if self.soft else "permutation"
        matrices = [mixing(self, x.shape[-1], self.soft, f"{kind}_{i}") for i, x in enumerate(levels)]
        return [mixed(x, matrix, inverse) for x, matrix in zip(levels, matrices, strict=True)], 0.0


def mixing(module: nn.Module, depth: int, soft: bool, name: str) -> jax.Array:
    """The matrix `[C, C]` that a layer multiplies channels with; its variable `name` is drawn uniformly.

    A permutation is kept as the number of the channel that comes i-th, a rotation R as y = R x.
    """
    if soft:
        draw = lambda: jax.random.orthogonal(module.make_rng("params"), depth)  # noqa: E731
        return module.variable("constants", name, draw).value.T
    draw = lambda: jax.random.permutation(module.make_rng("params"), depth)  # noqa: E731
    return jax.nn.one_hot(module.variable("constants", name, draw).value, depth, axis=0)


def mixed(x: jax.Array, matrix: jax.Array, inverse: bool) -> jax.Array:
    """The channels of `x` times a matrix of `mixing`.

    A matrix product even for permutations, because XLA's gradient of an index along channels is slow. It is exact: every sum
    has one term.
    """
    return jnp.matmul(x, matrix.T if inverse else matrix, precision="highest")


class AllInOneBlock(nn.Module):
    """An affine coupling, a scale for each channel and a permutation of the channels (FrEIA's block of this name).

    1. The first half x1 of the channels, with a condition c if there is one, moves the second:
       x2 -> x2 exp(s(x1, c)) + t(x1, c), where s = clamp tanh(0.1 a) and t = 0.1 b. A network gives (a, b).
    2. y = permute(scale x + offset), where scale = 0.2 log(1 + exp(g / 2)) starts at 1.

    Attributes:
      subnet: `(channels in, channels out) -> network`, see `convolutions` and `dense`. FrEIA builds it from the number of x1's
        channels.
      clamp: largest |s|.
      soft: a rotation in place of the permutation.
    """

    subnet: Callable[[int, int], Callable] = convolutions()
    clamp: float = 2.0
    soft: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, ..., C]` to the same shape, and gives log |det| of the Jacobian of this direction, `[B]`.

        Args:
          x: rows or maps.
          condition: `[B, ..., K]`.
          inverse: from y to x.
        """
        depth = x.shape[-1]
        second = depth // 2
        first = depth - second
        start = 2 * jnp.log(jnp.expm1(5.0))
        scale = self.param("global_scale", lambda key: jnp.full((depth,), start))
        scale = 0.2 * jax.nn.softplus(0.5 * scale)
        offset = self.param("global_offset", nn.initializers.zeros, (depth,))
        matrix = mixing(self, depth, self.soft, "rotation" if self.soft else "permutation")
        network = self.subnet(first + (0 if condition is None else condition.shape[-1]), 2 * second)

        def coupled(x):
            moved_by = x[..., :first]
            ab = 0.1 * network(moved_by if condition is None else jnp.concatenate([moved_by, condition], axis=-1))
            y, log_det = affine(x[..., first:], self.clamp * jnp.tanh(ab[..., :second]), ab[..., second:], inverse)
            return jnp.concatenate([moved_by, y], axis=-1), log_det

        constant = math.prod(x.shape[1:-1]) * jnp.sum(jnp.log(scale))
        if inverse:
            x, log_det = coupled((mixed(x, matrix, True) - per_channel(offset, x)) / per_channel(scale, x))
            return x, log_det - constant
        x, log_det = coupled(x)
        return mixed(per_channel(scale, x) * x + per_channel(offset, x), matrix, False), log_det + constant


class LevelCoupling(nn.Module):
    """Two affine couplings in turn, each over all levels at once: y1 = x1 exp(s(x2)) + t(x2), then y2 = x2 exp(s(y1)) + t(y1).

    x1 and x2 are the halves of the channels of every level. One network sees a half of all levels and gives (s, t) of all of
    them: the cross-scale coupling of CS-Flow (Rudolph et al., WACV 2022, eq. 2). With one level it is the coupling of Glow
    (Kingma & Dhariwal, NeurIPS 2018) as FrEIA has it. Log scales are `atan_clamp`.

    Attributes:
      subnet: `(1 or 2, channels out of each level) -> network`, which maps levels `[B, ..., half of C]` to levels of so many
        channels. Number 2 sees x2, number 1 sees y1.
      clamp: of the log scales.
      by_position: give the part of each position in log |det|, where there is one level.
    """

    subnet: Callable[[int, list[int]], Callable]
    clamp: float
    by_position: bool = False

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], inverse: bool = False) -> tuple[list[jax.Array], jax.Array]:
        """Maps levels to levels of the same shapes, and gives log |det| `[B]` of this direction."""
        firsts, seconds = ([x[..., : x.shape[-1] // 2] for x in levels], [x[..., x.shape[-1] // 2 :] for x in levels])
        of_second = self.subnet(1, [2 * x.shape[-1] for x in seconds])
        of_first = self.subnet(2, [2 * x.shape[-1] for x in firsts])

        def moved(halves, outputs):
            pairs = []
            for x, output in zip(halves, outputs, strict=True):
                a, t = jnp.split(output, 2, axis=-1)
                pairs.append(affine(x, atan_clamp(a, self.clamp), t, inverse, self.by_position))
            return [y for y, _ in pairs], functools.reduce(jnp.add, [log_det for _, log_det in pairs])

        if inverse:
            seconds, one = moved(seconds, of_second(firsts))
            firsts, two = moved(firsts, of_first(seconds))
        else:
            firsts, one = moved(firsts, of_first(seconds))
            seconds, two = moved(seconds, of_second(firsts))
        return [jnp.concatenate(halves, axis=-1) for halves in zip(firsts, seconds, strict=True)], one + two
