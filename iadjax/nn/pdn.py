"""The patch description network of EfficientAD (Batzner et al., WACV 2024, tables 6 and 7)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv

__all__ = ["PDN", "SPECS"]

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
