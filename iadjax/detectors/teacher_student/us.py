"""US: "Uninformed Students: Student-Teacher Anomaly Detection with Discriminative Latent Embeddings" (Bergmann et al.,
CVPR 2020, arXiv 1911.02357).

A teacher describes patches of images as a large network does. Students learn its descriptors on normal images. Where they are
wrong, or differ from each other, an image is anomalous. Patches of several sizes are compared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.moments import Moments, merged, no_moments, standardized
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.layers import uniform_fan_in
from iadjax.nn.patch_network import SPECS, PatchNetwork
from iadjax.synthesis.source import image_source

__all__ = ["compactness", "errors", "us"]


class Uninformed(NamedTuple):
    """State of US; each attribute is a tuple with one member for each size of patches.

    Attributes:
      teachers: networks with their optimisers; "decoder" of the parameters maps descriptors to the backbone's.
      students: the same of all students, each array `[students, ...]`.
      descriptors: moments of the teacher's channels on training images.
      scores: moments of (error, variance) on held-out images.
    """

    teachers: tuple[Trained, ...]
    students: tuple[Trained, ...]
    descriptors: tuple[Moments, ...]
    scores: tuple[Moments, ...]


def compactness(x: jax.Array) -> jax.Array:
    """Sum of the squared correlations of all pairs of descriptors `[N, D]` (eq. 3)."""
    z = (x - x.mean(axis=1, keepdims=True)) / jnp.std(x, axis=1, ddof=1, keepdims=True)
    correlation = jnp.matmul(z, z.T, precision="highest") / (x.shape[1] - 1)
    return jnp.sum(jnp.triu(correlation, 1) ** 2)


def errors(teacher: jax.Array, students: jax.Array) -> jax.Array:
    """Regression error of the students' mean and their variance (eq. 7 and 8), `[B, H, W, 2]`.

    Args:
      teacher: `[B, H, W, D]`.
      students: `[students, B, H, W, D]`.
    """
    mean = jnp.mean(students, axis=0)
    squares = lambda x: jnp.sum(x**2, axis=-1)  # noqa: E731
    return jnp.stack([squares(mean - teacher), jnp.mean(squares(students), axis=0) - squares(mean)], axis=-1)


def us(
    backbone: Backbone,
    *,
    layer: str = "layer4",
    patch_sizes: Sequence[int] = (17, 33, 65),
    num_students: int = 3,
    width: int = 128,
    dimension: int = 128,
    decode: int = 0,
    teacher_images: str = "",
    teacher_steps: int = 50000,
    crops: int = 64,
    target_size: int = 0,
    compactness_weight: float = 1.0,
    teacher_learning_rate: float = 2e-4,
    epochs: int = 100,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds US.

    Map: regression error and variance of the students, each in standard deviations of held-out normal images, added.

    Args:
      backbone: frozen network that the teacher imitates, ResNet-18 in the paper; its variables are `frozen["backbone"]`.
      layer: its level, whose mean over positions describes a patch.
      patch_sizes: sides of the patches, of 17, 33 and 65; each size has a teacher and students, and maps are averaged.
      num_students: M, students of each size.
      width: channels of the networks' first layer.
      dimension: d, numbers of a descriptor.
      decode: 0: students learn descriptors, as in the paper; a decoder maps the teacher's to the backbone's numbers. Otherwise,
        as in the known re-implementation with 512, networks end in so many decoded numbers, activated.
      teacher_images: folder of the images that the teachers see, ImageNet in the paper; "" draws textures; "train": the
        training images, as in the re-implementation.
      teacher_steps, teacher_learning_rate: of the teachers' Adam.
      crops: patches for each image of a batch in these steps, flipped and turned by quarters.
      target_size: side to which a patch is enlarged for the backbone; 0: not enlarged.
      compactness_weight: lambda_c; lambda_k is 1, and lambda_m, of triplets, is 0 as in the paper's experiments.
      epochs, learning_rate: of the students' Adam. Their images are flipped.
      weight_decay: the L2 term in all gradients.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have; in fitting: no image in `teacher_images`.
    """
    (layer,) = check_layers(backbone, (layer,))
    if not patch_sizes or any(size not in SPECS for size in patch_sizes):
        raise UserError(f"detector.patch_sizes must be some of {', '.join(map(str, SPECS))}, got {patch_sizes}")
    check_options("[1, inf)", num_students=num_students, width=width, epochs=epochs, teacher_steps=teacher_steps)
    check_options("[2, inf)", dimension=dimension, crops=crops)
    check_options("[0, inf)", target_size=target_size, compactness_weight=compactness_weight, weight_decay=weight_decay)
    check_options("[0, inf)", decode=decode)
    check_options("(0, inf)", learning_rate=learning_rate, teacher_learning_rate=teacher_learning_rate)
    networks = [PatchNetwork(size, width, dimension, decode) for size in patch_sizes]
    source = image_source("" if teacher_images == "train" else teacher_images)
    teacher_optimizer, optimizer = (adam_with_l2(rate, weight_decay) for rate in (teacher_learning_rate, learning_rate))

    def described(frozen, patches):
        """The backbone's description of patches, `[N, C]`."""
        if target_size:
            patches = ops.resize(patches, (target_size, target_size))
        return jnp.mean(backbone.features(frozen["backbone"], patches, (layer,))[0], axis=(1, 2))

    def init(key, frozen, spec):
        if teacher_images == "train" and min(spec.image_shape[:2]) < max(patch_sizes):
            raise UserError(f"images of {spec.image_shape[:2]} have no patches of {max(patch_sizes)} pixels")
        teachers, students = [], []
        for size, network, each in zip(patch_sizes, networks, jax.random.split(key, len(networks)), strict=True):
            patch = jnp.zeros((1, size, size, 3))
            keys = jax.random.split(each, num_students + 2)
            depth = jax.eval_shape(described, frozen, patch).shape[-1]
            if decode not in (0, depth):
                raise UserError(f"detector.decode must be 0 or the {depth} channels of {layer}, got {decode}")
            params = dict(network.init(keys[0], patch)["params"])
            if not decode:
                params["decoder"] = uniform_fan_in(keys[1], (dimension, depth))
            teachers.append(init_trained({"params": params}, teacher_optimizer))
            params = jax.vmap(lambda key, network=network, patch=patch: network.init(key, patch))(keys[2:])
            students.append(init_trained(params, optimizer))
        descriptors, scores = (tuple(no_moments(number) for _ in networks) for number in (decode or dimension, 2))
        return Uninformed(tuple(teachers), tuple(students), descriptors, scores)

    def taught(network, teacher, image):
        return jax.lax.stop_gradient(network.apply({"params": undecoded(teacher.variables)}, image, dense=True))

    def undecoded(variables):
        return {name: value for name, value in variables["params"].items() if name != "decoder"}

    def learned(network, variables, image):
        """`[students, B, H, W, D]`."""
        # not by `lax.map`: in a loop XLA:CPU computes convolutions on one core
        each = (jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in range(num_students))
        return jnp.stack([network.apply(student, image, dense=True) for student in each])

    def draw_crops(rng, image, draw):
        del draw
        found = {}
        for size in patch_sizes:
            # an image for sixteen crops
            others = teacher_images != "train"
            large = [source(rng, (256, 256)) for _ in range(-(-crops // 16))] if others else [image]
            patches = []
            for i in range(crops):
                whole = large[i // 16 if others else 0]
                y, x = (rng.integers(0, side - size + 1) for side in whole.shape[:2])
                patch = np.rot90(whole[y : y + size, x : x + size], rng.integers(4))
                patches.append(patch[::-1] if rng.random() < 0.5 else patch)
            found[f"crops_{size}"] = np.stack(patches).astype(np.float32)
        return found

    def flip(rng, image, draw):
        del draw
        image = image[::-1] if rng.random() < 0.5 else image
        return {"flipped": np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)}

    def distil(key, state, frozen, batch):
        del key
        new, total = [], 0.0
        for size, network, teacher in zip(patch_sizes, networks, state.teachers, strict=True):
            patches = batch.extra[f"crops_{size}"]
            rows = patches.reshape(-1, size, size, 3)
            target = described(frozen, rows)

            def objective(variables, network=network, rows=rows, target=target):
                x = network.apply({"params": undecoded(variables)}, rows)
                decoded = x if decode else jnp.matmul(x, variables["params"]["decoder"], precision="highest")
                # eq. 1 and 3, of the crops of each image
                distance = jnp.sum((decoded - target) ** 2, axis=1).reshape(-1, crops).mean(axis=1)
                loss = distance + compactness_weight * jax.vmap(compactness)(x.reshape(-1, crops, x.shape[-1]))
                return losses.mean(loss, batch.valid), ({}, {})

            trained, info = train_step(teacher, objective, teacher_optimizer)
            new, total = [*new, trained], total + info["loss"]
        return state._replace(teachers=tuple(new)), {"loss": total}

    def describe(key, state, frozen, batch):
        del key, frozen
        triples = zip(networks, state.teachers, state.descriptors, strict=True)
        new = tuple(merged(moments, taught(each, teacher, batch.image), batch.valid) for each, teacher, moments in triples)
        return state._replace(descriptors=new), {"images": new[0].count}

    def learn(key, state, frozen, batch):
        del key, frozen
        image, new, total = batch.extra["flipped"], [], 0.0
        for network, teacher, student, moments in zip(networks, *state[:3], strict=True):
            target = standardized(taught(network, teacher, image), moments)

            def objective(variables, network=network, target=target):
                # eq. 6, of every student alone
                distance = jnp.sum((learned(network, variables, image) - target[None]) ** 2, axis=-1)
                return losses.mean(jnp.sum(jnp.mean(distance, axis=(2, 3)), axis=0), batch.valid), ({}, {})

            trained, info = train_step(student, objective, optimizer)
            new, total = [*new, trained], total + info["loss"]
        return state._replace(students=tuple(new)), {"loss": total}

    def errors_of(state, image):
        """Of each size of patches, `[B, H, W, 2]`."""
        members = zip(networks, *state[:3], strict=True)
        return [
            errors(standardized(taught(each, teacher, image), moments), learned(each, student.variables, image))
            for each, teacher, student, moments in members
        ]

    def calibrate(key, state, frozen, batch):
        del key, frozen
        pairs = zip(state.scores, errors_of(state, batch.image), strict=True)
        new = tuple(merged(moments, values, batch.valid) for moments, values in pairs)
        return state._replace(scores=new), {"images": new[0].count}

    def phases(spec):
        del spec
        return (
            Phase("teacher", distil, steps=teacher_steps, augment=draw_crops),
            Phase("descriptors", describe),
            Phase("students", learn, epochs=epochs, augment=flip),
            Phase("calibrate", calibrate, split="validation"),
        )

    def predict(state, frozen, batch):
        del frozen
        pairs = zip(errors_of(state, batch.image), state.scores, strict=True)
        maps = sum(jnp.sum(standardized(*pair), axis=-1) for pair in pairs) / len(networks)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return Detector(init, phases, predict)
