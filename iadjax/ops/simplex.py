"""Simplex noise on the device, for noise that is drawn anew in every step; `synthesis.simplex` has it on the host."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["GRADIENTS", "SCALE", "offsets", "simplex_field"]

# directions to the corners of an octagon, and of a rhombicuboctahedron, as OpenSimplex has them
GRADIENTS = {
    2: np.array([(a * x, b * y) for a, b in ((1, 1), (-1, 1), (1, -1), (-1, -1)) for x, y in ((5, 2), (2, 5))], np.float64),
    3: np.array(
        [
            (-a * x, b * y, c * z)
            for c, b, a in itertools.product((1, -1), repeat=3)
            for x, y, z in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
        ],
        np.float64,
    ),
}
# of the values, so that they lie in about [-1, 1]
SCALE = {2: 47.0, 3: 103.0}


def offsets(dimensions: int) -> list[tuple[int, ...]]:
    """Lattice points about a cell that can be nearer than sqrt 2 to one of its points."""
    near = itertools.product(range(-1, 3), repeat=dimensions)
    return [each for each in near if 0 <= sum(each) <= dimensions and max(each) - min(each) <= 2]


_OFFSETS = np.array(offsets(3), np.int32)
_STRETCH, _SQUISH = -1 / 6, 1 / 3


def _plane(table: jax.Array, size: tuple[int, int], z: jax.Array, scale: jax.Array) -> jax.Array:
    """One octave of one plane z of three-dimensional noise, `[height, width]`, at the integers divided by `scale`."""
    height, width = size
    y, x = jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)[None]
    position = jnp.stack([jnp.broadcast_to(each, size) for each in (x, y, z[None, None])]) / scale
    base = jnp.floor(position + _STRETCH * jnp.sum(position, axis=0)[None])
    point = base[None] + jnp.asarray(_OFFSETS, jnp.float32)[:, :, None, None]
    delta = position[None] - point - _SQUISH * jnp.sum(point, axis=1)[:, None]
    weight = jnp.maximum(2 - jnp.sum(delta**2, axis=1), 0) ** 4
    index = jnp.zeros((), jnp.int32)
    for corner in range(3):
        index = table[(index + point[:, corner].astype(jnp.int32)) & 255]
    gradient = jnp.asarray(GRADIENTS[3], jnp.float32)[index % len(GRADIENTS[3])]
    dot = sum(gradient[..., i] * delta[:, i] for i in range(3))
    return jnp.sum(weight * dot, axis=0) / SCALE[3]


def simplex_field(
    key: jax.Array,
    size: tuple[int, int],
    z: jax.Array,
    octaves: int = 6,
    persistence: float = 0.8,
    wavelength: float = 64.0,
    channels: int = 3,
) -> jax.Array:
    """Simplex noise of several octaves (AnoDDPM, Wyatt et al., CVPRW 2022), each channel of its own, not normalised.

    Args:
      key: draws the tables of the lattice.
      size: (height, width).
      z: scalar, the third coordinate, the same for all pixels: the time of the diffusion.
      octaves: their number; each halves the wavelength.
      persistence: factor of the amplitude from one octave to the next.
      wavelength: of the first octave, in pixels.
      channels: of the result.

    Returns:
      `[height, width, channels]` float32.
    """
    tables = jax.vmap(lambda key: jax.random.permutation(key, 256))(jax.random.split(key, channels))
    scales = wavelength / 2.0 ** np.arange(octaves)
    amplitudes = persistence ** np.arange(octaves)
    z = jnp.asarray(z, jnp.float32)

    def channel(table):
        def octave(total, pair):
            scale, amplitude = pair
            return total + amplitude * _plane(table, size, z, scale), None

        pairs = jnp.asarray(scales, jnp.float32), jnp.asarray(amplitudes, jnp.float32)
        return jax.lax.scan(octave, jnp.zeros(size), pairs)[0]

    # one after the other: all at once take a hundred times the memory of the image
    return jnp.moveaxis(jax.lax.map(channel, tables), 0, -1)
