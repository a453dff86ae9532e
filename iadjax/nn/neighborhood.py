"""Networks of PNI: what is likely among the neighbours of a patch, and the refinement of a map."""

import flax.linen as nn
import jax
import numpy as np

from iadjax import ops
from iadjax.nn.convolution import convolve
from iadjax.nn.layers import Conv, Dropout, uniform_bias, uniform_fan_in
from iadjax.nn.norms import BatchNorm

__all__ = ["Neighborhood", "Refiner", "inside"]


def inside(x: jax.Array, border: int) -> jax.Array:
    """`[B, h, w, ...]` without so many rows and columns at each side."""
    return x[:, border : x.shape[1] - border, border : x.shape[2] - border]


class Around(nn.Module):
    """A linear layer of all neighbours of every position, zeros outside: a convolution without one of its positions.

    Attributes:
      features: of the output.
      reach: neighbours to each side.
      removed: position that is left out, counted row by row.
    """

    features: int
    reach: int
    removed: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        side = 2 * self.reach + 1
        kernel = self.param("kernel", uniform_fan_in, (side, side, x.shape[-1], self.features))
        kept = np.ones((side * side, 1, 1), np.float32)
        kept[self.removed] = 0
        kernel = (kernel.reshape(side * side, *kernel.shape[2:]) * kept).reshape(kernel.shape)
        bias = self.param("bias", uniform_bias(side * side * x.shape[-1]), (self.features,))
        return convolve(x, kernel, 1, self.reach) + bias[None, None, None]


class Neighborhood(nn.Module):
    """Logits of K entries for each patch, from its neighbours: linear layers with BatchNorm, ReLU and dropout.

    Attributes:
      entries: K.
      layers, hidden: linear layers, and numbers between them.
      dropout: rate behind each of them but the last.
      reach: neighbours to each side.
      border: positions at the border that have no output.
      skip_next: whether the position behind the centre is left out in its place.
    """

    entries: int
    layers: int
    hidden: int
    dropout: float
    reach: int
    border: int
    skip_next: bool

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """`[B, h, w, D]` to `[B, h', w', K]`; `valid`: rows that give the statistics in training, None in prediction."""
        centre = (2 * self.reach + 1) ** 2 // 2
        x = Around(self.hidden, self.reach, centre + self.skip_next, name="first_layer_0")(x)
        x = inside(x, self.border)
        names = ["first_layer", *(f"hidden_layers_{i}" for i in range(self.layers - 2))]
        for name in names:
            if name != "first_layer":
                x = Conv(self.hidden, 1, name=f"{name}_0")(x)
            x = nn.relu(BatchNorm(name=f"{name}_1")(x, valid))
            x = Dropout(self.dropout, deterministic=valid is None)(x)
        return Conv(self.entries, 1, name="last_layer_0")(x)


class Refiner(nn.Module):
    """A correction of a map: early features of image and map are averaged, then encoded, and decoded without shortcuts.

    Attributes:
      width: channels of the early features; they double with each halving of the size.
      halvings: of the size.
    """

    width: int
    halvings: int

    @nn.compact
    def __call__(self, image: jax.Array, maps: jax.Array) -> jax.Array:
        """Image `[B, H, W, 3]` in [0, 1] and map `[B, H, W]` to `[B, H, W]`."""
        pairs = (("image", image - 0.5), ("map", maps[..., None]))
        early = [nn.relu(Conv(self.width, 5, 2, name=name)(x)) for name, x in pairs]
        x = (early[0] + early[1]) / 2
        for i in range(1, self.halvings):
            x = nn.relu(Conv(self.width << i, 3, 2, name=f"down{i}")(x))
        for i in range(self.halvings):
            x = ops.resize(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
            features = max(x.shape[-1] // 2, 4)
            x = nn.relu(Conv(features, 1, name=f"up{i}_a")(x))
            x = nn.relu(Conv(features, 3, name=f"up{i}_b")(x))
        return Conv(1, 1, name="last")(x)[..., 0]
