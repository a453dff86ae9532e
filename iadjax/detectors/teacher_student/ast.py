"""AST: "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection" (Rudolph et al., WACV 2023, arXiv 2210.07829).

The teacher is a normalising flow of a network's features. The student, an ordinary convolutional network, learns its outputs.
It cannot extrapolate as the flow does, so their difference is large where features are new. Images alone are used here.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.flow import LevelCoupling, Permutation, chain, position_codes
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm

__all__ = ["Student", "Teacher", "ast", "distance", "nll"]


class Pair(NamedTuple):
    """State of AST: both networks with their optimisers."""

    teacher: Trained
    student: Trained


class Subnet(nn.Module):
    """The network of a coupling, conditioned on positions, whose output begins as zero.

    Attributes:
      channels: of the output.
      hidden: channels between its convolutions.
      kernel: of both.
      condition: channels of the position's code.
    """

    channels: int
    hidden: int
    kernel: int
    condition: int

    @nn.compact
    def __call__(self, levels: list[jax.Array]) -> list[jax.Array]:
        """One level `[B, h, w, C]` to `[B, h, w, channels]`."""

        def conv(x, features, name):
            pad = (self.kernel // 2, self.kernel // 2)
            padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), mode="edge")
            return Conv(features, self.kernel, padding=0, name=name)(padded)

        x = jnp.concatenate([levels[0], position_codes(levels[0], self.condition)], axis=-1)
        x = conv(nn.relu(conv(x, self.hidden, "conv1")), self.channels, "conv2")
        return [x * self.param("gamma", nn.initializers.zeros, (1,))[None, None, None]]


class Teacher(nn.Module):
    """The flow (section 3.2): Glow's couplings with a permutation before each; the last one has kernels of 5 x 5.

    Attributes:
      blocks: couplings.
      hidden: channels inside their networks.
      condition: channels of the position's code.
      clamp: of the log scales.
    """

    blocks: int
    hidden: int
    condition: int
    clamp: float

    @nn.compact
    def __call__(self, x: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Features `[B, h, w, C]` to latent ones, or back, and the part of each position in log |det| `[B, h, w]`."""
        layers = []
        for k in range(self.blocks):
            kernel = 5 if k == self.blocks - 1 else 3

            def subnet(number, widths, kernel=kernel):
                return Subnet(widths[0], self.hidden, kernel, self.condition, name=f"s{number}")

            # numbers as in the authors' list, where the inputs are the first two
            layers.append(Permutation(name=f"module_list_{2 * k + 2}"))
            layers.append(LevelCoupling(subnet, self.clamp, by_position=True, name=f"module_list_{2 * k + 3}"))
        (z,), log_det = chain(layers, [x], inverse=inverse)
        return z, log_det


class Student(nn.Module):
    """Residual blocks between two convolutions (section 3.3).

    Attributes:
      blocks: their number.
      hidden: channels inside.
      condition: channels of the position's code.
    """

    blocks: int
    hidden: int
    condition: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Features `[B, h, w, C]` to outputs of this shape; `valid` as that of `BatchNorm`."""
        channels = x.shape[-1]
        x = jnp.concatenate([position_codes(x, self.condition), x], axis=-1)
        x = nn.leaky_relu(Conv(self.hidden, name="conv1")(x))
        for i in range(self.blocks):
            y = x
            for k in (1, 2):
                y = Conv(self.hidden, name=f"res_{i}_l{k}")(y)
                y = nn.leaky_relu(BatchNorm(name=f"res_{i}_bn{k}")(y, valid))
            # the authors add behind the second activation
            x = x + y
        return Conv(channels, name="conv2")(x)


def nll(z: jax.Array, log_det: jax.Array, foreground: jax.Array | float = 1.0) -> jax.Array:
    """The teacher's loss of each position `[B, h, w]` (eq. 3): |z|^2 / 2 - log |det|, weighted by the foreground."""
    return foreground * (0.5 * jnp.sum(z**2, axis=-1) - log_det)


def distance(teacher: jax.Array, student: jax.Array, foreground: jax.Array | float = 1.0) -> jax.Array:
    """Mean squared difference of outputs `[B, h, w, C]` over channels (eq. 5, 6), weighted by the foreground: `[B, h, w]`."""
    return foreground * jnp.mean((teacher - student) ** 2, axis=-1)


def ast(
    backbone: Backbone,
    *,
    layer: str = "stage6",
    coupling_blocks: int = 4,
    teacher_hidden: int = 64,
    student_blocks: int = 4,
    student_hidden: int = 1024,
    condition_dimension: int = 32,
    clamp: float = 1.9,
    scores: str = "mean",
    epochs: int = 72,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds AST.

    Map: squared difference of the outputs of teacher and student, the mean over channels.

    Args:
      backbone: frozen network, EfficientNet-B5 in the paper; its variables are `frozen["backbone"]`.
      layer: its level.
      coupling_blocks, teacher_hidden: couplings of the teacher, and channels inside their networks.
      student_blocks, student_hidden: residual blocks of the student, and their channels.
      condition_dimension: channels of the position's code, a multiple of 4.
      clamp: alpha, which bounds the log scales.
      scores: of an image: "mean" of its map, or "max". The authors' code reports both. With depth, whose foreground masks the
        map, they take the maximum.
      epochs: passes over the images for the teacher, and again for the student; 3 meta epochs of 24 in the authors' code.
      learning_rate, weight_decay: Adam's, with the L2 term in the gradient.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or features of one channel.
    """
    (layer,) = check_layers(backbone, (layer,))
    check_options("[1, inf)", coupling_blocks=coupling_blocks, teacher_hidden=teacher_hidden, epochs=epochs)
    check_options("[1, inf)", student_blocks=student_blocks, student_hidden=student_hidden)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)
    check_multiple(4, condition_dimension=condition_dimension)
    if scores not in ("mean", "max"):
        raise UserError(f"detector.scores must be 'mean' or 'max', got {scores!r}")
    teacher = Teacher(coupling_blocks, teacher_hidden, condition_dimension, clamp)
    student = Student(student_blocks, student_hidden, condition_dimension)
    optimizer = adam_with_l2(learning_rate, weight_decay)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, (layer,))[0]

    def init(key, frozen, spec):
        del frozen
        if spec.features.shape[-1] < 2:
            raise UserError(f"ast needs features of at least two channels; {layer} has one")
        zeros = jnp.zeros(spec.features.shape)
        keys = jax.random.split(key)
        networks = zip((teacher, student), keys, strict=True)
        return Pair(*(init_trained(network.init(each, zeros), optimizer) for network, each in networks))

    def learn_likelihood(key, state, frozen, batch):
        del key, frozen

        def objective(variables):
            loss = nll(*teacher.apply(variables, batch.features))
            return losses.mean(jnp.mean(loss, axis=(1, 2)), batch.valid), ({}, {})

        trained, info = train_step(state.teacher, objective, optimizer)
        return Pair(trained, state.student), info

    def learn_outputs(key, state, frozen, batch):
        del key, frozen
        z, _ = teacher.apply(state.teacher.variables, batch.features)

        def objective(variables):
            output, changed = student.apply(variables, batch.features, batch.valid, mutable="batch_stats")
            return losses.mean(jnp.mean(distance(z, output), axis=(1, 2)), batch.valid), (changed, {})

        trained, info = train_step(state.student, objective, optimizer)
        return Pair(state.teacher, trained), info

    def phases(spec):
        del spec
        return Phase("teacher", learn_likelihood, epochs=epochs), Phase("student", learn_outputs, epochs=epochs)

    def predict(state, frozen, batch):
        del frozen
        z, _ = teacher.apply(state.teacher.variables, batch.features)
        values = distance(z, student.apply(state.student.variables, batch.features))
        score = (jnp.mean if scores == "mean" else jnp.max)(values, axis=(1, 2))
        return Prediction(score, ops.anomaly_map(values, batch.image.shape[1:3]))

    return Detector(init, phases, predict, embed)
