"""DeSTSeg: "Segmentation Guided Denoising Student-Teacher for Anomaly Detection" (Zhang et al., CVPR 2023, arXiv 2211.11317).

A student sees images with synthetic defects and learns the teacher's features of the images without them. A segmentation
network then learns from the same defects where student and teacher disagree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import normalize
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.nn.layers import Conv, DilatedConv
from iadjax.nn.norms import BatchNorm
from iadjax.nn.residual import Block, Pyramid
from iadjax.synthesis.perlin_texture import perlin_anomaly, rotate
from iadjax.synthesis.source import image_source

__all__ = ["Networks", "Segmentation", "Student", "destseg"]

GREY = np.float32(114 / 255)  # outside of rotated images


class Networks(NamedTuple):
    """The state: two networks, trained one after the other."""

    student: Trained
    segmentation: Trained


def _stage(x, features, blocks, name, valid):
    for i in range(blocks):
        x = Block(features, 0, 1, False, x.shape[-1] != features, name=f"{name}_{i}")(x, valid)
    return x


class Student(nn.Module):
    """The denoising student (section 3.2): an encoder, then a decoder without skips; with the names of the authors' code.

    Attributes:
      channels: of the teacher's levels, finest first.
      blocks: residual blocks of each stage.
      width: channels of the encoder's first stage, which each stage doubles.
    """

    channels: tuple[int, ...]
    blocks: int
    width: int

    @nn.compact
    def __call__(self, image: jax.Array, grids: Sequence[tuple[int, int]], valid: jax.Array | None) -> list[jax.Array]:
        """`[B, H, W, 3]` to features on the grids of the teacher's levels."""
        number = len(self.channels) + 1
        widths = [self.width * 2**i for i in range(number)]
        encoder = Pyramid(widths, [self.blocks] * number, 0, self.width, name="encoder")
        x = encoder(normalize(image), valid)[-1]
        x, levels = _stage(x, widths[-1], self.blocks, f"decoder_layer{number}", valid), []
        for i in reversed(range(number - 1)):
            x = _stage(ops.resize(x, grids[i]), self.channels[i], self.blocks, f"decoder_layer{i + 1}", valid)
            levels.insert(0, x)
        return levels


class Segmentation(nn.Module):
    """Residual blocks and a head with atrous pooling (section 3.3), with the names of the authors' code.

    Attributes:
      features: channels inside.
      blocks: how many.
      rates: of the dilated convolutions.
    """

    features: int
    blocks: int
    rates: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[B, h, w, C]` to logits `[B, h, w]`."""

        def active(y, name):
            return nn.relu(BatchNorm(name=name)(y, valid))

        x = _stage(x, self.features, self.blocks, "res", valid)
        pooled = x.mean(axis=(1, 2), keepdims=True)
        pooled = active(Conv(self.features, 1, bias=False, name="aspp_0_conv")(pooled), "aspp_0_norm")
        branches = [jnp.broadcast_to(pooled, x.shape)]
        for i, rate in enumerate(self.rates, start=1):
            branches.append(active(DilatedConv(self.features, rate, name=f"aspp_{i}_conv")(x), f"aspp_{i}_norm"))
        x = active(Conv(self.features, bias=False, name="fusion_conv")(jnp.concatenate(branches, axis=-1)), "fusion_norm")
        x = active(Conv(self.features, bias=False, name="head_1")(x), "head_2")
        return Conv(1, 1, name="head_4")(x)[..., 0]


def destseg(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    width: int = 64,
    blocks: int = 2,
    hidden: int = 256,
    rates: Sequence[int] = (6, 12, 18),
    segment: bool = True,
    textures: str = "",
    max_beta: float = 0.8,
    rotation: float = 0.0,
    right_angles: bool = False,
    student_steps: int = 1000,
    segment_steps: int = 4000,
    student_rate: float = 0.4,
    residual_rate: float = 0.1,
    head_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    gamma: float = 4.0,
    top: int = 100,
) -> Detector:
    """Builds DeSTSeg.

    Map: probability of a defect, in [0, 1]; with segment=False the product over levels of 1 - cos.

    Args:
      backbone: the teacher T, ResNet-18 in the paper; its variables are `frozen["backbone"]`.
      layers: its levels.
      width, blocks: channels of the student's first stage; residual blocks of its stages and of the segmentation network.
      hidden, rates: channels and dilations of the segmentation network.
      segment: whether there is one; otherwise the map is that of the denoising student alone.
      textures: folder of images for synthetic defects, DTD in the paper; "" draws textures.
      max_beta: largest opacity of the image inside a defect.
      rotation: largest rotation of a training image in degrees.
      right_angles: whether it is rotated by a multiple of 90 degrees too. The authors choose both by category.
      student_steps, student_rate: of SGD for the student, whose loss is the sum over the batch.
      segment_steps, residual_rate, head_rate: of SGD for the segmentation network's blocks and its head.
      momentum, weight_decay: of both, the decay as an L2 term in the gradient.
      gamma: of the focal loss (eq. 6).
      top: the image's score is the mean of so many largest pixels.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in fitting: no image in `textures`.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, blocks=blocks, hidden=hidden, top=top, rates=min(rates, default=0))
    check_options("[1, inf)", student_steps=student_steps, segment_steps=segment_steps)
    check_options("(0, inf)", student_rate=student_rate, residual_rate=residual_rate, head_rate=head_rate)
    check_options("[0, inf)", rotation=rotation, weight_decay=weight_decay, gamma=gamma)
    check_options("[0, 1)", momentum=momentum)
    check_options("[0, 1]", max_beta=max_beta)
    source, turned = image_source(textures), bool(rotation or right_angles)
    segmentation = Segmentation(hidden, blocks, tuple(rates))

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def augment(rng, image, draw):
        del draw
        if turned:
            angle = (90.0 * rng.integers(4) if right_angles else 0.0) + rng.uniform(-rotation, rotation)
            image = rotate(image - GREY, angle) + GREY
        augmented, mask = perlin_anomaly(rng, image, source, beta=(0.0, max_beta))
        return {"augmented": augmented, "mask": mask, **({"clean": image} if turned else {})}

    def denoise(variables, levels, image, valid=None):
        """The student's features beside the teacher's `levels`, all of unit length, and its running statistics."""
        network, grids = Student(tuple(x.shape[-1] for x in levels), blocks, width), [x.shape[1:3] for x in levels]
        found, changed = network.apply(variables, image, grids, valid, mutable="batch_stats")
        return [ops.unit(x) for x in levels], [ops.unit(x) for x in found], changed

    def products(teacher, student):
        """Eq. 4: minus the element-wise products, on the first level's grid."""
        return ops.concatenate_levels([-t * s for t, s in zip(teacher, student, strict=True)])

    def optimizers():
        def sgd(rate):
            return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum))

        parts = {"res": sgd(residual_rate), "head": sgd(head_rate)}
        label = lambda params: {name: "res" if name.startswith("res") else "head" for name in params}  # noqa: E731
        return sgd(student_rate), optax.multi_transform(parts, label)

    def init(key, frozen, spec):
        del frozen
        keys, levels = jax.random.split(key), spec.features
        network = Student(tuple(level.shape[-1] for level in levels), blocks, width)
        first = network.init(keys[0], jnp.zeros((1, *spec.image_shape)), [level.shape[1:3] for level in levels], None)
        depth = sum(level.shape[-1] for level in levels)
        second = segmentation.init(keys[1], jnp.zeros((1, *levels[0].shape[1:3], depth)), None)
        return Networks(*map(init_trained, (first, second), optimizers()))

    def learn(key, state, frozen, batch):
        del key
        clean = embed(frozen, batch.extra["clean"]) if turned else batch.features

        def objective(variables):
            teacher, student, changed = denoise(variables, clean, batch.extra["augmented"], batch.valid)
            # eq. 3: the mean over positions, the sum over levels and, in the authors' code, over the batch
            distance = sum(1 - jnp.sum(t * s, axis=-1).mean(axis=(1, 2)) for t, s in zip(teacher, student, strict=True))
            return jnp.sum(jnp.where(batch.valid, distance, 0)), (changed, {})

        trained, info = train_step(state.student, objective, optimizers()[0])
        return Networks(trained, state.segmentation), info

    def guide(key, state, frozen, batch):
        del key
        augmented = batch.extra["augmented"]
        x = products(*denoise(state.student.variables, embed(frozen, augmented), augmented)[:2])
        mask = ops.resize(batch.extra["mask"][..., None].astype(x.dtype), x.shape[1:3])[..., 0]
        mask = (mask >= 0.5).astype(x.dtype)

        def objective(variables):
            logits, changed = segmentation.apply(variables, x, batch.valid, mutable="batch_stats")
            focal = optax.losses.sigmoid_focal_loss(logits, mask, gamma=gamma)
            each = {"loss_focal": focal, "loss_l1": jnp.abs(nn.sigmoid(logits) - mask)}
            parts = {name: losses.mean(x.mean(axis=(1, 2)), batch.valid) for name, x in each.items()}
            return sum(parts.values()), (changed, parts)

        trained, info = train_step(state.segmentation, objective, optimizers()[1])
        return Networks(state.student, trained), info

    def predict(state, frozen, batch):
        del frozen
        teacher, student, _ = denoise(state.student.variables, batch.features, batch.image)
        if segment:
            maps = nn.sigmoid(segmentation.apply(state.segmentation.variables, products(teacher, student), None))
        else:
            grid = teacher[0].shape[1:3]
            distance = [1 - jnp.sum(t * s, axis=-1) for t, s in zip(teacher, student, strict=True)]
            maps = jnp.prod(jnp.stack([ops.anomaly_map(each, grid) for each in distance]), axis=0)
        maps = ops.anomaly_map(maps, batch.image.shape[1:3])
        return Prediction(ops.mean_of_largest(maps.reshape(len(maps), -1), top), maps)

    def warm_start(fresh, old):
        return Networks(*map(copy_variables, fresh, old))

    phases = [Phase("denoise", learn, steps=student_steps, augment=augment)]
    phases += [Phase("segment", guide, steps=segment_steps, augment=augment)] if segment else []
    return Detector(init, lambda spec: tuple(phases), predict, embed, warm_start=warm_start)
