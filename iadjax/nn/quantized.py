"""VQ-VAE-2 of two levels (Razavi et al., NeurIPS 2019) with the names of DSR's code, and codebooks that follow features."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Conv
from iadjax.nn.transposed import ConvTranspose
from iadjax.ops.distances import in_parts, squared_distances
from iadjax.parallel.axis import all_rows, all_sum

__all__ = ["Decoder", "DiscreteAutoencoder", "VectorQuantizer"]


class VectorQuantizer(nn.Module):
    """A codebook whose codes are moving means of the features next to them (van den Oord et al., NeurIPS 2017, appendix A.1).

    It begins with features of the first batch: a code that is used less than `revive` times in a step, in the moving mean,
    moves to a random feature of the batch (Dhariwal et al., 2020, "Jukebox", section 3.1).

    Attributes:
      codes: K.
      decay: of the moving means.
      revive: see above; 0: never.
    """

    codes: int
    decay: float = 0.99
    revive: float = 0.03

    @nn.compact
    def __call__(
        self, z: jax.Array, valid: jax.Array | None = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Puts each vector of `[B, h, w, D]` on the code that is nearest to it.

        Args:
          z: the features.
          valid: `[B]`, the rows that move the codes; None: they stay.
          key: draws the features that codes move to; with `valid` alone.

        Returns:
          The codes, whose gradient is that of `z`, and the commitment loss `[B]`, the mean of (z - code)^2.
        """
        shape = (self.codes, z.shape[-1])
        draw = lambda: jax.random.normal(self.make_rng("params"), shape)  # noqa: E731
        embedding = self.variable("codebook", "embedding", draw)
        size = self.variable("codebook", "size", jnp.zeros, shape[:1])
        total = self.variable("codebook", "total", jnp.zeros, shape)
        rows = jax.lax.stop_gradient(z).reshape(len(z), -1, shape[1])
        # the distances of a large batch would take gigabytes
        code = in_parts(lambda row: jnp.argmin(squared_distances(row, embedding.value), axis=1), rows, self.codes)
        found = embedding.value[code].reshape(z.shape)
        if valid is not None and not self.is_initializing():
            used = jax.nn.one_hot(code, self.codes, dtype=z.dtype) * valid[:, None, None].astype(z.dtype)
            number, added = jnp.sum(used, axis=(0, 1)), jnp.einsum("bnk,bnd->kd", used, rows, precision="highest")
            number, added = all_sum((number, added))
            size.value = self.decay * size.value + (1 - self.decay) * number
            total.value = self.decay * total.value + (1 - self.decay) * added
            if self.revive:
                lost = size.value < self.revive
                size.value = jnp.where(lost, 1.0, size.value)
                total.value = jnp.where(lost[:, None], _drawn(key, z, valid, self.codes), total.value)
            embedding.value = total.value / jnp.maximum(size.value, 1e-12)[:, None]
        commitment = jnp.mean((z - jax.lax.stop_gradient(found)) ** 2, axis=(1, 2, 3))
        return z + jax.lax.stop_gradient(found - z), commitment


def _drawn(key: jax.Array, z: jax.Array, valid: jax.Array, number: int) -> jax.Array:
    """So many random vectors of the valid rows of the whole batch, the same on every replica."""
    z, valid = jax.lax.stop_gradient(all_rows((z, valid)))
    rows, positions = jax.random.split(key)
    row = jax.random.categorical(rows, jnp.where(valid, 0.0, -jnp.inf), shape=(number,))
    z = z.reshape(len(z), -1, z.shape[-1])
    return z[row, jax.random.randint(positions, (number,), 0, z.shape[1])]


def _stack(x: jax.Array, layers: int, hidden: int, **init: Callable) -> jax.Array:
    """Residual blocks; the ReLU of the authors' code works in place, so what a shortcut passes on is activated too."""
    for i in range(layers):
        x = nn.relu(x)
        y = nn.relu(Conv(hidden, bias=False, name=f"layers_{i}_block_1", **init)(x))
        x += Conv(x.shape[-1], 1, bias=False, name=f"layers_{i}_block_3", **init)(y)
    return nn.relu(x)


class _Encoder(nn.Module):
    """Convolutions (channels, kernel), of which those of kernel 4 halve the grid, and residual blocks."""

    convolutions: Sequence[tuple[int, int]]
    layers: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        for i, (features, kernel) in enumerate(self.convolutions, start=1):
            x = nn.relu(Conv(features, kernel, 2 if kernel == 4 else 1, 1, name=f"conv_{i}")(x))
        return _stack(x, self.layers, self.hidden)


class Decoder(nn.Module):
    """A convolution, residual blocks and two transposed convolutions: `[B, h, w, C]` to an image `[B, 4 h, 4 w, 3]`.

    Attributes:
      width: channels inside.
      layers, hidden: residual blocks, and channels inside them.
      kernel_init: draws the kernels; None: PyTorch's default.
    """

    width: int
    layers: int
    hidden: int
    kernel_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = {"kernel_init": self.kernel_init} if self.kernel_init else {}
        x = _stack(Conv(self.width, name="conv_1", **init)(x), self.layers, self.hidden, **init)
        x = nn.relu(ConvTranspose(self.width // 2, name="conv_trans_1", **init)(x))
        return ConvTranspose(3, name="conv_trans_2", **init)(x)


class DiscreteAutoencoder(nn.Module):
    """Encoder of two levels with a codebook each, and the decoder of both.

    The low level's grid has an eighth of the image's side, the high one's a quarter.

    Attributes:
      width: channels inside.
      layers, hidden: residual blocks, and channels inside them.
      codes, dimension: of each codebook.
      decay, revive: see `VectorQuantizer`.
    """

    width: int
    layers: int
    hidden: int
    codes: int
    dimension: int
    decay: float = 0.99
    revive: float = 0.03

    def setup(self):
        n, blocks = self.width, (self.layers, self.hidden)
        self.encoder_b = _Encoder(((n // 2, 4), (n, 4), (n, 3)), *blocks)
        self.encoder_t = _Encoder(((n, 4), (n, 3)), *blocks)
        self.pre_vq_conv_top, self.pre_vq_conv_bot = (Conv(self.dimension, 1) for _ in range(2))
        self.vq_vae_top, self.vq_vae_bot = (VectorQuantizer(self.codes, self.decay, self.revive) for _ in range(2))
        self.upsample_t = ConvTranspose(self.dimension)
        self.decoder_b = Decoder(n, *blocks)

    def __call__(self, image: jax.Array, valid: jax.Array | None = None, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """`[B, H, W, 3]` to the codes of both levels, low first, the restored image and the commitment losses of both `[B]`."""
        keys = (None, None) if key is None else jax.random.split(key)
        features, z = self.low(image)
        low, first = self.vq_vae_top(z, valid, keys[0])
        high, second = self.vq_vae_bot(self.high(features, low), valid, keys[1])
        return low, high, self.decoder_b(self.joined(low, high)), first, second

    def low(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The features of the high level's encoder, and those that the low level's codes replace."""
        features = self.encoder_b(image)
        return features, self.pre_vq_conv_top(self.encoder_t(features))

    def high(self, features: jax.Array, low: jax.Array) -> jax.Array:
        """The features that the high level's codes replace; they depend on the low level's codes."""
        return self.pre_vq_conv_bot(jnp.concatenate([features, self.upsample_t(low)], axis=-1))

    def quantize_low(self, z: jax.Array) -> jax.Array:
        """The low level's codes that are nearest to features."""
        return self.vq_vae_top(z)[0]

    def quantize_high(self, z: jax.Array) -> jax.Array:
        """The high level's."""
        return self.vq_vae_bot(z)[0]

    def encode(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The codes of both levels, low first."""
        features, z = self.low(image)
        low = self.quantize_low(z)
        return low, self.quantize_high(self.high(features, low))

    def joined(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """The codes of both levels on the grid of the high one, which decoders take."""
        return jnp.concatenate([self.upsample_t(low), high], axis=-1)

    def decode(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """The image of codes of both levels."""
        return self.decoder_b(self.joined(low, high))
