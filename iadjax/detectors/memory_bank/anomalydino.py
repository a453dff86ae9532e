"""AnomalyDINO: "Boosting Patch-based Few-shot Anomaly Detection with DINOv2" (Damm et al., WACV 2025, arXiv 2405.14529).

A memory bank holds the normalised patch tokens of a few normal images and of their rotated copies. The score of an image is
the mean distance of its most distant hundredth of patches.
"""

from collections.abc import Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.memory_bank import memory_bank
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError

__all__ = ["anomalydino", "foreground", "rotate"]


def anomalydino(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("norm",),
    rotations: int = 8,
    masking: bool = False,
    mask_references: bool = False,
    mask_threshold: float = 10.0,
    top: float = 0.01,
    nearest: float = 0.0,
    leave_out: bool = False,
    sigma: float = 4.0,
    bank_bytes: int = 0,
) -> Detector:
    """Builds AnomalyDINO.

    Map: cosine distance of patch tokens, in [0, 2], smoothed.

    Args:
      backbone: frozen network; DINOv2 ViT-S/14 in the paper. Any other one that has the layers works.
      layers: the tokens: "norm" are DINOv2's patch tokens behind its last norm; several are concatenated on the first grid.
      rotations: how many equally spaced rotations of a reference image are kept; 8 (every 45 degrees) is the paper's
        "agnostic" setting, 1 is none ("informed" for products that always lie the same way).
      masking: whether patches of the background score 0 (section 3.3). Those have a first principal component of at most
        `mask_threshold`. The authors switch masking on for five categories of MVTec AD (capsule, hazelnut, pill, screw,
        toothbrush) and for all of VisA. It is off by default, because a default must not know the category.
      mask_references: whether background patches of the reference images are left out as well (off in the authors' code).
      mask_threshold: of the principal component, in units of the tokens.
      top: fraction of the patches, in (0, 1]; the mean distance of the most distant ones is the image's score.
      nearest: fraction of the bank, in [0, 1): the distance of a patch is the mean over the rows below that quantile; 0 = the
        nearest row alone. The authors take 0.001 where the test images score each other (section 3.4).
      leave_out: whether an image's own patches are left out of the bank, found by its position in the split; for the protocol
        "zero_shot" with `test_batch` alone, because other splits have the same positions.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.
      bank_bytes: what the bank may take while it fills, over all devices; 0 = no limit. A full bank is compressed to a greedy
        coreset of half its rows, as often as necessary (docs/scaling.md has the loss).

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, no patch of a reference is left, or
        `leave_out` with one image.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", rotations=rotations)
    check_options("(0, 1]", top=top)
    check_options("[0, inf)", sigma=sigma)
    check_options("[0, 1)", nearest=nearest)

    def embed(frozen, image):
        return ops.concatenate_levels(backbone.features(frozen["backbone"], image, layers))

    def describe(frozen, batch):
        """The unit tokens of every rotation, `[B, rotations, h, w, D]`; zeros where they are masked out."""
        image = batch.image
        tokens = [batch.features]
        if rotations > 1:
            rotated = jnp.stack([rotate(image, 360 * i / rotations) for i in range(1, rotations)], axis=1)
            others = embed(frozen, rotated.reshape(-1, *image.shape[1:]))
            others = others.reshape(image.shape[0], rotations - 1, *others.shape[1:])
            tokens += [others[:, i] for i in range(rotations - 1)]
        x = jnp.stack(tokens, axis=1)
        y = ops.unit(x)
        if masking and mask_references:
            shown = foreground(x.reshape(-1, *x.shape[2:]), mask_threshold).reshape(x.shape[:-1])
            y = jnp.where(shown[..., None], y, 0)
        return y

    def choose(key, bank):
        del key
        size = int(bank.rows)
        if leave_out and int(bank.count) < 2:
            raise UserError("detector.leave_out compares images with others and got one; give more test images")
        if not (masking and mask_references):
            return np.arange(size, dtype=np.int32), None
        shown = jnp.any(bank.features != 0, axis=-1) & (jnp.arange(len(bank.features)) < size)
        kept = jnp.nonzero(shown, size=int(jnp.sum(shown)))[0]
        if not len(kept):
            raise UserError("the mask hides every patch of the reference images; lower detector.mask_threshold")
        return kept, None

    def lowest(memory, queries, index):
        """Of one image's unit tokens `[P, D]`: the mean cosine distance to the rows below the quantile."""
        own = (memory.origin[:, 0] == index) & (index >= 0) & leave_out
        bank = jnp.where(own[:, None], ops.FAR, memory.features)
        most = max(1, int(nearest * len(bank)))
        distance = 0.5 * ops.nearest_neighbors(queries, bank, most)[0] ** 2
        # as the authors' code: strictly below the k-th distance
        rows = (memory.rows - jnp.sum(own)).astype(jnp.float32)
        kept = jnp.maximum((nearest * rows).astype(jnp.int32) - 1, 1)
        return jnp.sum(jnp.where(jnp.arange(most)[None] < kept, distance, 0), axis=1) / kept.astype(jnp.float32)

    def predict(memory, frozen, batch):
        del frozen
        x = batch.features
        rows, height, width, depth = x.shape
        queries = ops.unit(x).reshape(rows, -1, depth)
        # eq. 2: the cosine distance, which is half the squared Euclidean one of unit vectors
        if nearest or leave_out:
            distance = jax.lax.map(lambda each: lowest(memory, *each), (queries, batch.index))
        else:
            distance = 0.5 * ops.nearest_neighbors(queries.reshape(-1, depth), memory.features, 1)[0] ** 2
        distance = distance.reshape(rows, height, width)
        if masking:
            distance = jnp.where(foreground(x, mask_threshold), distance, 0)
        # eq. 3: the mean of the largest hundredth (the tail value at risk)
        score = ops.top_mean(distance.reshape(rows, -1), top)
        return Prediction(score, ops.anomaly_map(distance, batch.image.shape[1:3], sigma))

    return memory_bank(describe, choose, predict, bank_bytes, embed=embed, needs_image=rotations > 1)


def foreground(tokens: jax.Array, threshold: float, border: float = 0.2, fraction: float = 0.35) -> jax.Array:
    """Patches on the object: the first principal component of an image's tokens above a threshold.

    The sign makes the largest loading positive. It is flipped if at most `fraction` of the centre, `border` away from the
    edges, would be object. The mask is dilated and then closed, as in
    the authors' code: their 3 x 3 element meets the patches as one column, row after row, so it reaches the patches before
    and after, not those above and below.

    Args:
      tokens: `[B, h, w, D]`.
      threshold: of the component.
      border, fraction: see above.

    Returns:
      `[B, h, w]` bool.
    """
    batch, height, width, depth = tokens.shape
    x = tokens.reshape(batch, -1, depth)
    x = x - x.mean(axis=1, keepdims=True)
    _, vectors = jnp.linalg.eigh(jnp.einsum("bpi,bpj->bij", x, x, precision="highest"))
    first = vectors[..., -1]
    largest = jnp.take_along_axis(first, jnp.argmax(jnp.abs(first), axis=1)[:, None], axis=1)
    component = jnp.einsum("bpi,bi->bp", x, first * jnp.sign(largest), precision="highest").reshape(batch, height, width)
    rows, columns = (slice(int(side * border), int(side * (1 - border))) for side in (height, width))
    centre = jnp.mean(component[:, rows, columns] > threshold, axis=(1, 2), keepdims=True)
    mask = jnp.where(centre <= fraction, -component > threshold, component > threshold).reshape(batch, -1)
    return _erode(_dilate(_dilate(mask))).reshape(batch, height, width)


def _dilate(mask: jax.Array) -> jax.Array:
    padded = jnp.pad(mask, ((0, 0), (1, 1)))
    return padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]


def _erode(mask: jax.Array) -> jax.Array:
    return ~_dilate(~mask)


def rotate(image: jax.Array, degrees: float) -> jax.Array:
    """`[B, H, W, C]` rotated counter-clockwise about (W / 2, H / 2): bilinear, mirrored at the edges without repeating them."""
    if degrees % 360 == 0:
        return image
    height, width = image.shape[1:3]
    (top, left), (down, right) = _corners(height, width, degrees)
    rotated = 0.0
    for y, wy in ((top, 1 - down), (top + 1, down)):
        for x, wx in ((left, 1 - right), (left + 1, right)):
            rotated += image[:, _mirror(y, height), _mirror(x, width)] * (wy * wx).astype(np.float32)[None, ..., None]
    return rotated


@lru_cache
def _corners(height: int, width: int, degrees: float) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """For every pixel: the upper left of the four source pixels, `[H, W]` twice, and the distance from it."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = y - height / 2, x - width / 2
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    # multiples of 45 degrees hit pixels exactly: rounding keeps them there
    positions = np.round(height / 2 + sine * dx + cosine * dy, 9), np.round(width / 2 + cosine * dx - sine * dy, 9)
    whole = tuple(np.floor(position).astype(int) for position in positions)
    return whole, tuple(position - floor for position, floor in zip(positions, whole, strict=True))


def _mirror(position: np.ndarray, size: int) -> np.ndarray:
    if size == 1:
        return np.zeros_like(position)
    position = np.abs(position) % (2 * size - 2)
    return np.minimum(position, 2 * size - 2 - position)
