"""A Laplacian pyramid, and couplings between its levels that keep volumes (PyramidFlow, Lei et al., CVPR 2023)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.nn.flow import affine, atan_clamp
from iadjax.nn.layers import Conv
from iadjax.parallel.axis import all_sum

__all__ = ["PyramidCoupling", "build_pyramid", "compose_pyramid"]


def build_pyramid(x: jax.Array, levels: int) -> list[jax.Array]:
    """`[B, h, w, C]` to levels that halve: what blurring and pooling by maxima take away, and what they leave."""
    found = []
    for _ in range(levels - 1):
        smaller = ops.block_max(_blurred(x), 2)
        found.append(x - _blurred(ops.block_repeat(smaller, 2)))
        x = smaller
    return [*found, x]


def compose_pyramid(levels: Sequence[jax.Array]) -> jax.Array:
    """The inverse of `build_pyramid`."""
    x = levels[-1]
    for level in levels[-2::-1]:
        x = _blurred(ops.block_repeat(x, 2)) + level
    return x


def _blurred(x: jax.Array) -> jax.Array:
    """The binomial filter of 5 x 5, zeros outside."""
    height, width = x.shape[1:3]
    weights = np.array([1, 4, 6, 4, 1], np.float32) / 16
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    x = sum(float(weight) * x[:, i : i + height] for i, weight in enumerate(weights))
    return sum(float(weight) * x[:, :, i : i + width] for i, weight in enumerate(weights))


class PyramidCoupling(nn.Module):
    """One level x is moved by the levels next to it, y, and its channels are mixed: W (exp(s(y)) x + t(y)).

    Log scales s = `atan_clamp` less their mean, and |det W| = 1: W = P L (U + diag(+-exp(w - mean w))).

    Attributes:
      level: its number.
      kernel: of both convolutions of the network that gives s and t, which begin as zero.
      clamp: of the log scales.
      norm: the mean is "channel": over channels and images, at each position; "spatial": over positions and images, for each
        channel. In prediction it is the running mean of training.
    """

    level: int
    kernel: int
    clamp: float
    norm: str

    @nn.compact
    def __call__(
        self, levels: Sequence[jax.Array], valid: jax.Array | None = None, inverse: bool = False
    ) -> tuple[list[jax.Array], jax.Array]:
        """Maps levels `[B, h, w, C]`, and gives log |det| `[B]` of this direction; `valid [B]`: rows of training."""
        x, size = levels[self.level], levels[self.level].shape[1:3]
        depth = x.shape[-1]
        last = self.level == len(levels) - 1
        first = Conv(2 * depth, self.kernel, bias=False, name="conv_0")
        second = Conv(2 * depth, self.kernel, bias=False, kernel_init=nn.initializers.zeros, name="conv_2")
        finer = [] if self.level == 0 else [levels[self.level - 1]]
        coarser = [] if last else [ops.block_repeat(levels[self.level + 1], 2)]
        # the coarsest level gets parameters of the finer grid, the others make theirs on their own
        beside = finer if last else [ops.resize_nearest(each, size) for each in finer] + coarser
        parameters = second(nn.leaky_relu(first(jnp.concatenate(beside, axis=-1))))
        s = self._normed(atan_clamp(parameters[..., :depth], self.clamp), valid)
        s, t = (ops.resize_nearest(each, size) for each in (s, parameters[..., depth:]))
        weight = self._mixing(depth)
        if inverse:
            # in the order of the channels, P L U x = y
            x = jnp.einsum("bhwc,dc->bhwd", x, jnp.linalg.inv(weight), precision="highest")
            x, log_det = affine(x, s, t, inverse=True)
        else:
            x, log_det = affine(x, s, t)
            x = jnp.einsum("bhwc,dc->bhwd", x, weight, precision="highest")
        return [x if i == self.level else each for i, each in enumerate(levels)], log_det

    def _normed(self, s, valid):
        channel = self.norm == "channel"
        shape = (*s.shape[1:3], 1) if channel else (1, 1, s.shape[-1])
        running = self.variable("batch_stats", "mean", jnp.zeros, shape)
        if valid is None:
            return s - running.value[None]
        weight = valid.astype(s.dtype)
        means = s.mean(axis=3, keepdims=True) if channel else s.mean(axis=(1, 2), keepdims=True)
        mean = all_sum(jnp.sum(weight[:, None, None, None] * means, axis=0)) / jnp.maximum(all_sum(weight.sum()), 1)
        if not self.is_initializing():
            running.value = 0.9 * running.value + 0.1 * mean
        return s - mean[None]

    def _mixing(self, depth):
        def drawn():
            orthogonal = jax.random.orthogonal(self.make_rng("params"), depth)
            p, lower, upper = jax.scipy.linalg.lu(orthogonal)
            return {"p": p, "sign": jnp.sign(jnp.diag(upper))}, lower, upper

        # parameters are drawn from one matrix
        parts = drawn() if self.is_initializing() else (None, *[jnp.zeros((depth, depth))] * 2)
        constants = self.variable("constants", "lu", lambda: parts[0]).value
        lower = self.param("w_l", lambda key: parts[1])
        upper = self.param("w_u", lambda key: jnp.triu(parts[2], 1))
        scale = self.param("w_s", lambda key: jnp.log(jnp.abs(jnp.diag(parts[2]))))
        diagonal = jnp.diag(constants["sign"] * jnp.exp(scale - scale.mean()))
        product = lambda a, b: jnp.matmul(a, b, precision="highest")  # noqa: E731
        return product(constants["p"], product(jnp.tril(lower, -1) + jnp.eye(depth), jnp.triu(upper, 1) + diagonal))
