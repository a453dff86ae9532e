"""CutPaste: "Self-Supervised Learning for Anomaly Detection and Localization" (Li et al., CVPR 2021, arXiv 2104.04015).

A network learns to tell normal images from those in which a piece of themselves is pasted. A Gaussian is fitted to its
representations of normal images. The score is the distance to it. A network of patches instead of images gives maps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import copy_variables, gradient_phase, init_trained
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.rows import Rows, add_rows, init_rows, rows_of
from iadjax.detectors.families.shrinkage import ledoit_wolf
from iadjax.errors import UserError
from iadjax.nn.layers import linear
from iadjax.nn.masked_convolution import masked_block
from iadjax.nn.norms import BatchNorm
from iadjax.synthesis import cutpaste as synthesis
from iadjax.synthesis.appearance import colour_jitter

__all__ = ["Density", "Head", "Seen", "cutpaste"]

# the classes of each task; class 0 is the normal image
CLASSES = {"normal": 2, "scar": 2, "3way": 3}


class Seen(NamedTuple):
    """The state while the trained network sees normal images.

    Attributes:
      variables: of network and head.
      rows: `[N, P, D]`, the representations of P patches of each image.
    """

    variables: Any
    rows: Rows


class Density(NamedTuple):
    """What predicts.

    Attributes:
      variables: of network and head.
      mean: `[D]`.
      factor: `[D, D]`; |W (x - mean)| is the Mahalanobis distance.
    """

    variables: Any
    mean: jax.Array
    factor: jax.Array


class Head(nn.Module):
    """The projection head g and the classifier, used in training alone (figure 2), with the names of the re-implementation.

    Attributes:
      widths: of the layers of linear, BatchNorm and ReLU.
      classes: outputs.
    """

    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = nn.relu(BatchNorm(name=f"head_{3 * i + 1}")(linear(width, x.shape[-1], f"head_{3 * i}")(x), valid))
        return linear(self.classes, x.shape[-1], "out")(x)


def cutpaste(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    task: str = "3way",
    head: Sequence[int] = (512, 128),
    patch: int = 0,
    stride: int = 4,
    density_stride: int = 32,
    jitter: float = 0.1,
    steps: int = 65536,
    learning_rate: float = 0.03,
    momentum: float = 0.9,
    weight_decay: float = 3e-5,
    normalize: bool = True,
    sigma: float = 8.0,
    block: str = "",
    block_weight: float = 0.1,
) -> Detector:
    """Builds CutPaste.

    Map: Mahalanobis distance of the patches around a pixel; none without `patch`.

    There is no code of the authors. Where the paper is silent, github.com/Runinho/pytorch-cutpaste (no licence) is followed.
    The paper also moves training images by a random translation, whose size it does not give; here they are not moved.

    Args:
      backbone: the network f, which is trained from its weights; ResNet-18 from random ones in the paper.
      layers: levels whose means over positions, one after another, are the representation.
      task: what is told apart (section 2): normal images from "normal" CutPaste, from "scar", or all three as "3way".
      head: widths of the projection head's layers; the last is 128 and those before are 512.
      patch: side of the patches of the model that localises, 64 in the paper (section 3.2); 0: whole images, without a map.
      stride, density_stride: pixels between the patches that are scored, and those to which the Gaussian is fitted.
      jitter: largest change of colours of a training image (brightness, contrast, saturation and hue).
      steps, learning_rate, momentum, weight_decay: of SGD, whose rate falls to zero by a cosine. The paper has 256 epochs and
        calls 256 steps an epoch; the re-implementation takes 256 steps.
      normalize: whether representations have unit length, as in the re-implementation.
      sigma: of the Gaussians that spread the scores of patches over their pixels, in pixels; the paper gives none.
      block, block_weight: "sspcab" or "ssmctb" (`nn.masked_convolution`) after the last level; weight of its loss.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, a backbone whose BatchNorm cannot be
        trained, or images smaller than a patch.
    """
    layers, widths = check_layers(backbone, layers), tuple(head)
    if task not in CLASSES:
        raise UserError(f"detector.task must be one of {', '.join(CLASSES)}, got {task!r}")
    check_options("[1, inf)", stride=stride, density_stride=density_stride, steps=steps, head=min(widths, default=0))
    check_options("[0, inf)", patch=patch, weight_decay=weight_decay, block_weight=block_weight)
    check_options("[0, 1)", jitter=jitter, momentum=momentum)
    check_options("(0, inf)", learning_rate=learning_rate, sigma=sigma)
    classifier, masked = Head(widths, CLASSES[task]), masked_block(block)

    def augment(rng, image, draw):
        del draw
        if patch:
            top, left = (int(rng.integers(side - patch + 1)) for side in image.shape[:2])
            image = image[top : top + patch, left : left + patch]
        image = colour_jitter(rng, image, jitter, jitter) if jitter else image
        if task == "3way":
            return {"views": np.stack(list(synthesis.cutpaste_3way(rng, image).values()))}
        paste = synthesis.cutpaste if task == "normal" else synthesis.cutpaste_scar
        return {"views": np.stack([image, paste(rng, image)[0]])}

    def represent(variables, frozen, image, valid=None):
        """f(x) `[B, D]`, the running statistics, moved where `valid` is given, and the block's loss `[B]`."""
        network = {**frozen["backbone"], "params": variables["params"]["backbone"]}
        network["batch_stats"] = stats = variables["batch_stats"]["backbone"]
        if valid is None:
            levels = backbone.features(network, image, layers)
        else:
            levels, stats = backbone.features(network, image, layers, train=True, valid=valid)
        seen, own = levels[-1], jnp.zeros(len(image))
        if block:
            levels = (*levels[:-1], masked.apply({"params": variables["params"]["block"]}, seen))
            own = losses.mse(levels[-1], seen)
        return ops.level_means(levels), stats, own

    def grid(side, step):
        return np.arange(0, side - patch + 1, step) if patch else np.zeros(1, int)

    def patches(variables, frozen, image, step):
        """The representations of all patches, or of the image, `[B, rows, columns, D]`; one row after another."""
        height, width = (patch, patch) if patch else image.shape[1:3]
        columns = grid(image.shape[2], step)[:, None] + np.arange(width)

        def row(top):
            strip = jax.lax.dynamic_slice_in_dim(image, top, height, axis=1)
            # [B, height, columns, width, 3]
            cut = jnp.moveaxis(strip[:, :, columns], 2, 1)
            x, *_ = represent(variables, frozen, cut.reshape(-1, height, width, 3))
            return (ops.unit(x) if normalize else x).reshape(len(image), len(columns), -1)

        return jnp.moveaxis(jax.lax.map(row, jnp.asarray(grid(image.shape[1], step))), 0, 1)

    def optimizer():
        sgd = optax.sgd(optax.cosine_decay_schedule(learning_rate, steps), momentum)
        return optax.chain(optax.add_decayed_weights(weight_decay), sgd)

    def init(key, frozen, spec):
        if min(spec.image_shape[:2]) < patch:
            raise UserError(f"detector.patch={patch} is larger than the images, {spec.image_shape[:2]}; set a smaller one")
        # copies: the frozen variables are not the state's to donate
        copied = jax.tree.map(jnp.array, dict(frozen["backbone"]))
        own = {kind: {"backbone": copied.get(kind, {})} for kind in ("params", "batch_stats")}
        shape = (1, *spec.image_shape)
        if block:
            level = jax.eval_shape(lambda x: backbone.features(frozen["backbone"], x, layers)[-1], jnp.zeros(shape))
            own["params"]["block"] = masked.init(jax.random.fold_in(key, 1), jnp.zeros(level.shape))["params"]
        x, *_ = jax.eval_shape(lambda image: represent(own, frozen, image), jnp.zeros(shape))
        drawn = classifier.init(key, jnp.zeros(x.shape), jnp.ones(1, bool))
        return init_trained({kind: {**own[kind], "head": drawn[kind]} for kind in own}, optimizer())

    def loss(key, variables, frozen, batch):
        del key
        # eq. 1: the cross entropy of all classes in one batch, so that BatchNorm sees all of them
        views = jnp.swapaxes(batch.extra["views"], 0, 1)
        labels, valid = jnp.repeat(jnp.arange(len(views)), views.shape[1]), jnp.tile(batch.valid, len(views))
        x, stats, extra = represent(variables, frozen, views.reshape(-1, *views.shape[2:]), valid)
        own = {kind: variables[kind]["head"] for kind in ("params", "batch_stats")}
        logits, changed = classifier.apply(own, x, valid, mutable="batch_stats")
        values = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        moved = {"backbone": stats, "head": changed["batch_stats"]}
        return losses.mean(values + block_weight * extra, valid), ({"batch_stats": moved}, {})

    def phases(spec):
        positions = len(grid(spec.image_shape[0], density_stride)) * len(grid(spec.image_shape[1], density_stride))

        def begin(key, state, frozen):
            del key
            x = jax.eval_shape(lambda i: represent(state.variables, frozen, i)[0], jnp.zeros((1, *spec.image_shape)))
            return Seen(state.variables, init_rows(spec.num_images, (positions, x.shape[-1])))

        def see(key, state, frozen, batch):
            del key
            x = patches(state.variables, frozen, batch.image, density_stride)
            rows = add_rows(state.rows, x.reshape(len(x), positions, -1), batch.valid)
            return Seen(state.variables, rows), {"images": rows.count}

        def estimate(key, state, frozen):
            del key, frozen
            x = rows_of(state.rows)
            x = x.reshape(-1, x.shape[-1])
            if len(x) < 2:
                raise UserError(f"cutpaste needs at least two training images or patches, got {len(x)}")
            mean = x.mean(axis=0)
            # eq. 3: Sigma = L L^T, so that the distance is |L^-1 (x - mean)|
            factor = np.linalg.inv(np.linalg.cholesky(ledoit_wolf(x - mean)))
            return Density(state.variables, jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32))

        return (
            gradient_phase(
                loss, optimizer(), steps=steps, augment=augment, finalize=begin,
                finalized=lambda state: Seen(state.variables, Rows(jnp.zeros(()), jnp.zeros(()))),
            ),
            Phase("fit", see, estimate, finalized=lambda state: Density(state.variables, state.rows.count, state.rows.count)),
        )  # fmt: skip

    def predict(state, frozen, batch):
        x = patches(state.variables, frozen, batch.image, stride) - state.mean[None, None, None]
        distance = jnp.linalg.norm(jnp.matmul(x, state.factor.T, precision="highest"), axis=-1)
        score = distance.max(axis=(1, 2))
        if not patch:
            return Prediction(score)
        size = batch.image.shape[1:3]
        centres = [grid(side, stride) + (patch - 1) / 2 for side in size]
        return Prediction(score, ops.spread_patches(distance, centres, size, sigma))

    return Detector(init, phases, predict, warm_start=copy_variables)
