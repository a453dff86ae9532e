"""Patch SVDD: "Patch-level SVDD for Anomaly Detection and Segmentation" (Yi & Yoon, ACCV 2020, arXiv 2006.16067).

An encoder of small patches, and one of large patches on top of it, are trained from scratch. Nearby patches are drawn
together, and a classifier has to tell where a second patch lies. The score of a patch is the distance of its embedding to the
nearest one of normal images.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.bank import Bank, Memory
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.memory_bank import add_images, bank_partition, empty_bank, remember
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.errors import UserError
from iadjax.nn.patch_encoder import BigEncoder, PositionClassifier, SmallEncoder
from iadjax.synthesis.patch_pairs import draw_pairs

__all__ = ["Filling", "Fitted", "Training", "patchsvdd"]

SCALES = ("small", "big")


class Training(NamedTuple):
    """The state in training.

    Attributes:
      trained: both encoders and both classifiers.
      count: float32 scalar; images in the mean.
      mean: `[H, W, 3]`, the mean training image.
    """

    trained: Trained
    count: jax.Array
    mean: jax.Array


class Filling(NamedTuple):
    """The state while the trained encoders see the normal images; `small` and `big` are their embeddings."""

    variables: Any
    mean: jax.Array
    small: Bank
    big: Bank


class Fitted(NamedTuple):
    """What predicts: the encoders, the mean image, and the embeddings of all normal patches."""

    variables: Any
    mean: jax.Array
    small: Memory
    big: Memory


def patchsvdd(
    *,
    widths: Sequence[int] = (32, 64, 128, 128, 64, 32, 32),
    dimension: int = 64,
    hidden: int = 128,
    svdd_weight: float = 1e-3,
    fixed_output: bool = True,
    pairs: int = 1,
    noise: float = 0.02,
    epochs: int = 29900,
    learning_rate: float = 1e-4,
    small_stride: int = 4,
    big_stride: int = 16,
    combine: str = "product",
) -> Detector:
    """Builds Patch SVDD.

    Map: product of the mean Euclidean distances of the small and of the large patches that cover a pixel.

    Images have their mean image subtracted, as in the authors' code, which has no licence
    (github.com/nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch). Embeddings of all patches come from one pass over the image:
    the encoders have no padding.

    Args:
      widths: channels of the small encoder's convolutions before the last one. Their number gives the side K of small
        patches, 4 (n + 1), so 32; large patches have 2 K.
      dimension: D, of the embeddings.
      hidden: width of the large encoder and of the classifiers.
      svdd_weight: lambda (eq. 6), 1e-3 as in the command of the authors' README. The paper chooses it for each category. Their
        code has 1, with which all embeddings may become one; then the scores are rounding errors.
      fixed_output: whether the weights of the classifiers' last layer stay as they were drawn. In the authors' code their
        normalisation has no gradient, so that only the bias learns.
      pairs: of patches, of either kind and scale, that a step takes from an image.
      noise: standard deviation of what is added to each pixel, and to each colour of a patch, for the classifiers.
      epochs: passes over the images. The authors have 299 of 100 passes each.
      learning_rate: of Adam.
      small_stride, big_stride: pixels between the patches that are scored and kept, even numbers.
      combine: how the maps of both scales become one (section 3.4): by their "product", or "sum", which the code also has.

    Raises:
      UserError: an option out of its range; in `init`: images smaller than a large patch.
    """
    widths = (*widths, dimension)
    check_options("[1, inf)", dimension=dimension, widths=min(widths), hidden=hidden, pairs=pairs, epochs=epochs)
    check_options("[0, inf)", svdd_weight=svdd_weight, noise=noise)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_multiple(2, small_stride=small_stride, big_stride=big_stride)
    if combine not in ("product", "sum"):
        raise UserError(f"detector.combine must be 'product' or 'sum', got {combine!r}")
    encoder, top, classifier = SmallEncoder(widths), BigEncoder(hidden), PositionClassifier(hidden, fixed_output)
    sides, strides = (4 * len(widths), 8 * len(widths)), (small_stride, big_stride)
    optimizer = optax.adam(learning_rate)

    def augment(rng, image, draw):
        del draw
        drawn = {}
        for name, side in zip(SCALES, sides, strict=True):
            patches, corners, positions = draw_pairs(rng, image, side, pairs, noise)
            drawn |= {name: patches, f"{name}_corner": corners, f"{name}_position": positions}
        return drawn

    def embed_pairs(params, mean, extra):
        """The embeddings of the drawn patches of both scales, `[B, pairs, 4, D]` each."""
        found = []
        for name, side in zip(SCALES, sides, strict=True):
            patch, corner = extra[name], extra[f"{name}_corner"].reshape(-1, 2)
            normal = jax.vmap(lambda at, side=side: jax.lax.dynamic_slice(mean, (at[0], at[1], 0), (side, side, 3)))(corner)
            found.append(patch.reshape(normal.shape) - normal)
        small, big = found
        number, side = len(small), sides[0]
        quarters = ops.block_vectors(big, side).reshape(-1, side, side, 3)
        x = encoder.apply({"params": params["small"]}, jnp.concatenate([small, quarters]))
        both = x[:number, 0, 0], top.apply({"params": params["big"]}, x[number:].reshape(number, 2, 2, -1))
        return [each.reshape(-1, pairs, 4, dimension) for each in both]

    def embed_all(params, mean, image):
        """The embeddings of the patches of both scales on their grids, `[B, h, w, D]` each."""
        size, step = image.shape[1:3], sides[0] // 2
        dense = encoder.apply({"params": params["small"]}, image - mean[None])
        counts = [grid(size, side, stride) for side, stride in zip(sides, strides, strict=True)]

        def take(down, right, scale):
            # `dense` has a stride of 2
            hop, (h, w) = strides[scale] // 2, counts[scale]
            return dense[:, down : down + (h - 1) * hop + 1 : hop, right : right + (w - 1) * hop + 1 : hop]

        quarters = jnp.stack([take(down, right, 1) for down in (0, step) for right in (0, step)], axis=3)
        big = top.apply({"params": params["big"]}, quarters.reshape(-1, 2, 2, dimension))
        return [take(0, 0, 0), big.reshape(len(image), *counts[1], dimension)]

    def init(key, frozen, spec):
        del frozen
        if min(spec.image_shape[:2]) < sides[1]:
            raise UserError(f"patchsvdd needs images of at least {sides[1]} pixels on each side, got {spec.image_shape[:2]}")
        small, quarters = jnp.zeros((1, sides[0], sides[0], 3)), jnp.zeros((1, 2, 2, dimension))
        keys = jax.random.split(key, 4)
        params = {"small": encoder.init(keys[0], small)["params"], "big": top.init(keys[1], quarters)["params"]}
        drawn = jax.vmap(lambda each: classifier.init(each, quarters[:, 0, 0])["params"])(keys[2:])
        params |= {f"classifier_{name}": jax.tree.map(operator.itemgetter(i), drawn) for i, name in enumerate(SCALES)}
        return Training(init_trained({"params": params}, optimizer), jnp.zeros(()), jnp.zeros(spec.image_shape))

    def average(key, state, frozen, batch):
        del key, frozen
        count, mean = running_mean(state.count, state.mean, batch.image, batch.valid)
        return Training(state.trained, count, mean), {"images": count}

    def train(key, state, frozen, batch):
        del key, frozen

        def objective(variables):
            params, parts, loss = variables["params"], {}, 0.0
            for name, x in zip(SCALES, embed_pairs(params, state.mean, batch.extra), strict=True):
                difference = (x[:, :, 0] - x[:, :, 1]).reshape(-1, dimension)
                logits = classifier.apply({"params": params[f"classifier_{name}"]}, difference)
                wanted = batch.extra[f"{name}_position"].reshape(-1)
                # section 3.2: the relative position of two patches
                position = optax.losses.softmax_cross_entropy_with_integer_labels(logits, wanted).reshape(-1, pairs)
                # section 3.1: nearby patches; equal ones, at the border, have no gradient
                svdd = optax.safe_norm(x[:, :, 2] - x[:, :, 3], 0.0, axis=-1)
                found = [losses.mean(jnp.mean(each, axis=1), batch.valid) for each in (position, svdd)]
                parts |= {f"loss_position_{name}": found[0], f"loss_svdd_{name}": found[1]}
                # eq. 6
                loss = loss + found[0] + svdd_weight * found[1]
            return loss, ({}, parts)

        trained, info = train_step(state.trained, objective, optimizer)
        return Training(trained, state.count, state.mean), info

    def add(key, state, frozen, batch):
        del key, frozen
        found = embed_all(state.variables["params"], state.mean, batch.image)
        both = zip((state.small, state.big), found, strict=True)
        banks = [add_images(bank, x.reshape(len(x), -1, dimension), batch) for bank, x in both]
        info = {"images": banks[0].count, "rows_small": banks[0].rows, "rows_big": banks[1].rows}
        return Filling(state.variables, state.mean, *banks), info

    def keep_all(key, state, frozen):
        del key, frozen
        memories = (remember(bank, np.arange(int(bank.rows), dtype=np.int32)) for bank in (state.small, state.big))
        return Fitted(state.variables, state.mean, *memories)

    def phases(spec):
        def begin(key, state, frozen):
            del key, frozen
            patches = [np.prod(grid(spec.image_shape[:2], *each)) for each in zip(sides, strides, strict=True)]
            banks = (empty_bank(spec.num_images * int(each), int(each), dimension) for each in patches)
            return Filling(state.trained.variables, state.mean, *banks)

        def filling(state):
            return Filling(state.trained.variables, state.mean, *(Bank(*(state.mean for _ in Bank._fields)) for _ in SCALES))

        def fitted(state):
            memories = (Memory(bank.features, bank.rows, *bank[1:]) for bank in (state.small, state.big))
            return Fitted(state.variables, state.mean, *memories)

        return (
            Phase("average", average),
            Phase("train", train, begin, epochs, augment=augment, finalized=filling),
            Phase("fit", add, keep_all, finalized=fitted),
        )

    def predict(state, frozen, batch):
        del frozen
        size, maps = batch.image.shape[1:3], []
        found = embed_all(state.variables["params"], state.mean, batch.image)
        for x, memory, side, stride in zip(found, (state.small, state.big), sides, strides, strict=True):
            distance, _ = ops.nearest_neighbors(x.reshape(-1, dimension), memory.features)
            maps.append(ops.average_patches(distance.reshape(x.shape[:3]), side, stride, size))
        # section 3.4: both scales, and the largest value for the image
        both = maps[0] * maps[1] if combine == "product" else maps[0] + maps[1]
        return Prediction(both.max(axis=(1, 2)), both)

    def warm_start(fresh, old):
        return fresh._replace(trained=copy_variables(fresh.trained, old))

    return Detector(init, phases, predict, partition=bank_partition, warm_start=warm_start)


def grid(size: tuple[int, int], side: int, stride: int) -> tuple[int, int]:
    """How many patches of that side there are at that stride, downwards and to the right."""
    return (size[0] - side) // stride + 1, (size[1] - side) // stride + 1
