"""The built-in backbone: a fixed pyramid of oriented filters, colour and local contrast, which needs no weights.

Gabor energies at several orientations and wavelengths are a classical description of texture (Bovik, Clark & Geisler,
PAMI 1990). They are pooled to the grids of a ResNet: `layer1`, `layer2`, `layer3` have strides 4, 8, 16.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone, check_layers, plain_features

__all__ = ["filter_bank"]

_LAYERS = ("layer1", "layer2", "layer3")
_ORIENTATIONS = 6
_WAVELENGTHS = (4.0, 8.0)
_RADIUS = 7
# of the normalised luminance: its standard deviation, and the deviation (in [0, 1]) below which flat regions stay flat
_CONTRAST = 0.25
_FLOOR = 0.002

# rows: luminance, blue-yellow, red-green; an orthonormal opponent space
_OPPONENT = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]], np.float64)
_OPPONENT /= np.linalg.norm(_OPPONENT, axis=1, keepdims=True)


@lru_cache
def _gabors() -> np.ndarray:
    """`[k, k, 1, 2 F]` kernels: F even (cosine) ones, then F odd (sine) ones, each of zero mean and unit norm."""
    y, x = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1].astype(np.float64)
    even, odd = [], []
    for wavelength in _WAVELENGTHS:
        sigma = 0.45 * wavelength
        envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
        for angle in np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS:
            phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength
            for kernels, wave in ((even, np.cos(phase)), (odd, np.sin(phase))):
                kernel = envelope * wave
                kernel -= envelope * kernel.sum() / envelope.sum()
                kernels.append(kernel / np.linalg.norm(kernel))
    return np.stack(even + odd, axis=-1)[:, :, None].astype(np.float32)


def _binomial(x: jax.Array, stride: int) -> jax.Array:
    """Blur with the 5-tap binomial filter on every channel of `[B, H, W, C]`, edges repeated, then subsample."""
    taps = np.array([1, 4, 6, 4, 1]) / 16
    for axis in (1, 2):
        size = x.shape[axis]
        pads = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        # behind a barrier it is computed once; XLA:CPU would compute it again in each shifted part, and compile twice as long
        padded = jax.lax.optimization_barrier(jnp.pad(x, pads, mode="edge"))
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, stride, axis) for i in range(5)]
        x = sum(float(tap) * part for tap, part in zip(taps, shifted, strict=True))
    return x


def _upsample(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear", antialias=False)


def _normalize(luminance: jax.Array) -> jax.Array:
    """Removes slow changes of light and equalises contrast over neighbourhoods of about 60 pixels (divisive normalisation)."""

    def surround(x):
        for _ in range(4):
            x = _binomial(x, 2)
        return _upsample(_binomial(_binomial(x, 1), 1), luminance.shape[1:3])

    detail = luminance - surround(luminance)
    return _CONTRAST * detail / (jnp.sqrt(surround(detail**2)) + _FLOOR)


def _describe(image: jax.Array) -> jax.Array:
    """Features of an opponent image `[B, H, W, 3]` at a quarter of its resolution."""
    luminance = image[..., :1]
    pad = [(0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS), (0, 0)]
    responses = jax.lax.conv_general_dilated(
        jnp.pad(luminance, pad, mode="reflect" if min(luminance.shape[1:3]) > _RADIUS else "edge"),
        jnp.asarray(_gabors()),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    even, odd = jnp.split(responses, 2, axis=-1)
    amplitude = jnp.sqrt(even**2 + odd**2 + 1e-8)
    mean = _binomial(_binomial(image, 1), 1)
    contrast = jnp.sqrt(_binomial((image - mean) ** 2, 1) + 1e-8)
    # the logarithm keeps a few strong edges from dominating
    features = jnp.concatenate([jnp.log1p(20 * amplitude), 2 * image, 4 * jnp.log1p(20 * contrast)], axis=-1)
    return _binomial(_binomial(features, 2), 2)


def filter_bank() -> Backbone:
    """A multi-scale, multi-orientation filter pyramid; 18 channels a layer, strides 4, 8 and 16."""

    def features(variables, image, layers):
        del variables
        layers = check_layers(backbone, layers)
        opponent = jnp.einsum("bhwc,oc->bhwo", image, jnp.asarray(_OPPONENT, image.dtype), precision="highest")
        taps = {}
        opponent = jnp.concatenate([_normalize(opponent[..., :1]), opponent[..., 1:]], axis=-1)
        for layer in _LAYERS[: 1 + max(_LAYERS.index(layer) for layer in layers)]:
            if layer != _LAYERS[0]:
                opponent = _binomial(opponent, 2)
            taps[layer] = _describe(opponent)
        return tuple(taps[layer] for layer in layers)

    backbone = Backbone("filter_bank", _LAYERS, lambda key, layers: {}, plain_features(features))
    return backbone
