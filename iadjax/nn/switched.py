"""Vector quantisation with a codebook for each category (HVQ-Trans, Lu et al., NeurIPS 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.ops.distances import in_parts, squared_distances
from iadjax.parallel.axis import all_rows, all_sum

__all__ = ["SwitchedQuantizer", "transport"]


def transport(z: jax.Array, codes: jax.Array) -> jax.Array:
    """The expected cosine distance of each vector to codes that are drawn for it, with probabilities softmax(z.e / K).

    Args:
      z: `[N, D]`.
      codes: `[K, D]`, e.

    Returns:
      `[N]` in [0, 2].
    """
    probability = jax.nn.softmax(jnp.matmul(z, codes.T, precision="highest") / len(codes))
    cosine = jnp.matmul(ops.unit(z), ops.unit(codes).T, precision="highest")
    return jnp.sum(probability * (1 - cosine), axis=1)


class SwitchedQuantizer(nn.Module):
    """Codebooks, one of each category, whose codes are moving means of the features next to them.

    As in van den Oord et al. (NeurIPS 2017, appendix A.1), with numbers of features that are smoothed over a codebook: a code
    that is never used comes nearer as its sum decays. Where images of a batch have a category in common, its means move as by
    so many steps to what these images have together.

    Attributes:
      categories, codes, dimension: numbers of codebooks and of codes in each, and channels.
      decay: of the moving means, for each image of the category.
      eps: is added to the numbers.
      revive: a code that a step uses less, in the moving mean, moves to a random feature of its category in the batch; 0: none
        does.
    """

    categories: int
    codes: int
    dimension: int
    decay: float = 0.99
    eps: float = 1e-5
    revive: float = 0.0

    def setup(self):
        shape = (self.categories, self.codes, self.dimension)
        self.embedding = self.variable("codebook", "embedding", lambda: jax.random.normal(self.make_rng("params"), shape))
        self.size = self.variable("codebook", "size", jnp.zeros, shape[:2])
        # from zero, codes that are used at once would be means from the first step on
        begin = jnp.zeros_like if self.revive else jnp.array
        self.total = self.variable("codebook", "total", lambda: begin(self.embedding.value))

    def nearest(self, z: jax.Array) -> jax.Array:
        """The category whose codes are nearest to the vectors `[B, N, D]` of an image, in the mean: `[B]` int32."""

        def error(codes):
            return jnp.mean(in_parts(lambda row: jnp.min(squared_distances(row, codes), axis=1), z, self.codes), axis=1)

        return jnp.argmin(jax.lax.map(error, self.embedding.value), axis=0).astype(jnp.int32)

    def __call__(
        self, z: jax.Array, category: jax.Array, valid: jax.Array | None = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Puts each vector of `[B, N, D]` on the code that is nearest to it, of its image's category `[B]`.

        Args:
          z: the features.
          category: `[B]` int32.
          valid: `[B]`, the rows that move the codes; None: they stay.
          key: draws the features that codes move to; with `valid` alone.

        Returns:
          The codes, whose gradient is that of `z`, and the commitment loss `[B]`, the mean of (z - code)^2.
        """
        rows, own = jax.lax.stop_gradient(z), self.embedding.value[category]
        code = in_parts(lambda row: jnp.argmin(squared_distances(*row), axis=1), (rows, own), self.codes)
        found = jnp.take_along_axis(own, code[..., None], axis=1)
        if valid is not None and not self.is_initializing():
            self._move(rows, code, category, valid, key)
        commitment = jnp.mean((z - found) ** 2, axis=(1, 2))
        return z + jax.lax.stop_gradient(found - z), commitment

    def transport(self, z: jax.Array, category: jax.Array) -> jax.Array:
        """`transport` of the vectors `[B, N, D]` to the codes of their image's category: `[B, N]`."""
        return in_parts(lambda row: transport(*row), (z, self.embedding.value[category]), self.codes)

    def _move(self, z, code, category, valid, key):
        belongs = jax.nn.one_hot(category, self.categories, dtype=z.dtype) * valid[:, None].astype(z.dtype)
        used = jax.nn.one_hot(code, self.codes, dtype=z.dtype)
        number = belongs.T @ jnp.sum(used, axis=1)
        added = jnp.einsum("bk,bcd->kcd", belongs, jnp.einsum("bnc,bnd->bcd", used, z, precision="highest"))
        images, number, added = all_sum((jnp.sum(belongs, axis=0)[:, None], number, added))
        rate, mean = self.decay**images, jnp.maximum(images, 1)
        size = rate * self.size.value + (1 - rate) * number / mean
        total = rate[..., None] * self.total.value + ((1 - rate) / mean)[..., None] * added
        if self.revive:
            lost = (size < self.revive) & (images > 0)
            size = jnp.where(lost, 1.0, size)
            total = jnp.where(lost[..., None], self._drawn(key, z, belongs), total)
        every = jnp.sum(size, axis=1, keepdims=True)
        smoothed = (size + self.eps) / (every + self.codes * self.eps) * every
        # codes of categories that the batch lacks stay
        moved = total / jnp.maximum(smoothed, 1e-30)[..., None]
        self.embedding.value = jnp.where(images[..., None] > 0, moved, self.embedding.value)
        self.size.value, self.total.value = size, total

    def _drawn(self, key, z, belongs):
        """For each code a random vector of its category in the whole batch, the same on every replica: `[categories, K, D]`."""
        z, belongs = all_rows((z, belongs))
        rows, positions = jax.random.split(key)
        shape = (self.categories, self.codes)
        row = jax.random.categorical(rows, jnp.where(belongs.T[:, None] > 0, 0.0, -jnp.inf), shape=shape)
        return z[row, jax.random.randint(positions, shape, 0, z.shape[1])]
