"""The networks of EfficientAD (Batzner et al., WACV 2024, tables 6 to 8): patch descriptions and an autoencoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv, Dropout

__all__ = ["CHANNELS", "PDN", "SPECS", "Autoencoder"]

# of the teacher's features, and so of what is restored
CHANNELS = 384

# (features, kernel, padding while it is distilled, whether a 2 x 2 average pooling follows); the last one has no ReLU
SPECS = {
    "pdn_small": ((128, 4, 3, True), (256, 4, 3, True), (256, 3, 1, False), (0, 4, 0, False)),
    "pdn_medium": (
        (256, 4, 3, True),
        (512, 4, 3, True),
        (512, 1, 0, False),
        (512, 3, 1, False),
        (0, 4, 0, False),
        (0, 1, 0, False),
    ),
}


# of the autoencoder: channels of the convolutions of stride 2; the grids before the others, as (divisor of the image's side,
# what is taken off): 3, 8, 15, 32, 63 and 127 for 256 pixels
_ENCODED, _DECODED = (32, 32, 64, 64, 64), ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1))


class PDN(nn.Module):
    """Four or six convolutions; every output sees 33 x 33 pixels.

    Attributes:
      name_of_spec: a key of `SPECS`.
      features: channels of the output (0 in the spec): 384 of a teacher, 768 of a student.
      padding: True for distillation: 256 x 256 pixels give 64 x 64 outputs instead of 56 x 56.
    """

    name_of_spec: str
    features: int = 384
    padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, channels: tuple[int, int] | None = None) -> jax.Array:
        """Maps normalised images `[B, H, W, 3]` to `[B, h, w, features]`; with `channels` = (first, end) to that range only."""
        spec = SPECS[self.name_of_spec]
        for i, (features, kernel, padding, pool) in enumerate(spec, start=1):
            last = i == len(spec)
            pad = padding if self.padding else 0
            part = channels if last else None
            x = Conv(features or self.features, kernel, padding=pad, part=part, name=f"conv{i}")(x)
            if not last:
                x = nn.relu(x)
            if pool:
                x = _pool(x, 1 if self.padding else 0)
        return x


def _pool(x: jax.Array, padding: int) -> jax.Array:
    """2 x 2 average pooling with stride 2; zeros of the padding count; an odd last row or column is left out."""
    return ops.block_mean(jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))), 2)


class Autoencoder(nn.Module):
    """The autoencoder (table 8): a bottleneck of 64 numbers, bilinear upsampling and dropout between convolutions."""

    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        size = x.shape[1:3]
        for i, features in enumerate(_ENCODED, start=1):
            x = nn.relu(Conv(features, 4, 2, 1, name=f"encoder_enconv{i}")(x))
        x = Conv(64, x.shape[1:3], padding=0, name=f"encoder_enconv{len(_ENCODED) + 1}")(x)
        for i, (divisor, less) in enumerate(_DECODED, start=1):
            x = ops.resize(x, tuple(side // divisor - less for side in size))
            x = nn.relu(Conv(64, 4, padding=2, name=f"decoder_deconv{i}")(x))
            x = Dropout(self.dropout, deterministic=not train)(x)
        # the teacher's grid, 56 for 256 pixels
        x = ops.resize(x, tuple(side // 4 - 8 for side in size))
        x = nn.relu(Conv(64, 3, name=f"decoder_deconv{len(_DECODED) + 1}")(x))
        return Conv(CHANNELS, 3, name=f"decoder_deconv{len(_DECODED) + 2}")(x)
