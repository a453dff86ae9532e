"""RD4AD: "Anomaly Detection via Reverse Distillation from One-Class Embedding" (Deng & Li, CVPR 2022, arXiv 2201.10703).

A frozen teacher E gives features at three scales. A one-class bottleneck phi compresses them into an embedding. A student
decoder D, the mirrored teacher, restores them. D cannot restore what it never saw.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.resnet import SPECS
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import check_schedule, rate_schedule
from iadjax.errors import UserError
from iadjax.nn.layers import BatchNorm, Conv, ConvTranspose2x2

__all__ = ["rd4ad"]

_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, kernel: int, stride: int, name: str) -> Conv:
    return Conv(features, kernel, stride, bias=False, kernel_init=_kaiming, name=name)


def _deconv(features: int, name: str) -> ConvTranspose2x2:
    # PyTorch's default; the authors draw only ordinary convolutions by Kaiming's rule
    return ConvTranspose2x2(features, name=name)


class Block(nn.Module):
    """A residual block whose strided convolution halves the grid (phi), or doubles it by a transposed one (D).

    Attributes:
      features: channels of the output.
      width: channels inside a bottleneck block (1x1, 3x3, 1x1); 0 for a basic one (3x3, 3x3).
      stride: 1 or 2.
      up: double the grid instead of halving it.
      shortcut: whether the identity is projected.
    """

    features: int
    width: int
    stride: int
    up: bool
    shortcut: bool

    @nn.compact
    def __call__(self, x, valid):
        def strided(features, kernel, name):
            up = self.up and self.stride == 2
            return _deconv(features, name) if up else _conv(features, kernel, self.stride, name)

        def norm(y, name):
            return BatchNorm(name=name)(y, valid)

        if self.width:
            y = nn.relu(norm(_conv(self.width, 1, 1, "conv1")(x), "bn1"))
            y = nn.relu(norm(strided(self.width, 3, "conv2")(y), "bn2"))
            y = norm(_conv(self.features, 1, 1, "conv3")(y), "bn3")
        else:
            y = nn.relu(norm(strided(self.features, 3, "conv1")(x), "bn1"))
            y = norm(_conv(self.features, 3, 1, "conv2")(y), "bn2")
        if self.shortcut:
            name = "upsample" if self.up else "downsample"
            x = norm(strided(self.features, 1, f"{name}_0")(x), f"{name}_1")
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """phi: multi-scale feature fusion, then one-class embedding (section 3.3): a ResNet stage of stride 2."""

    channels: tuple[int, int, int]
    blocks: int
    width: int

    @nn.compact
    def __call__(self, features, valid):
        c1, c2, c3 = features
        _, second, third = self.channels
        c1 = nn.relu(BatchNorm(name="bn1")(_conv(second, 3, 2, "conv1")(c1), valid))
        c1 = nn.relu(BatchNorm(name="bn2")(_conv(third, 3, 2, "conv2")(c1), valid))
        c2 = nn.relu(BatchNorm(name="bn3")(_conv(third, 3, 2, "conv3")(c2), valid))
        x = jnp.concatenate([c1, c2, c3], axis=-1)
        for i in range(self.blocks):
            x = Block(2 * third, self.width and 8 * self.width, 1 if i else 2, False, i == 0, name=f"bn_layer_{i}")(x, valid)
        return x


class Decoder(nn.Module):
    """D: three stages that double the grid; each restores the features of one level, the deepest first."""

    channels: tuple[int, int, int]
    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, x, valid):
        levels = []
        for stage, (features, count) in enumerate(zip(self.channels[::-1], self.blocks, strict=False), start=1):
            width = self.width and self.width * 2 ** (3 - stage)
            for i in range(count):
                x = Block(features, width, 1 if i else 2, True, i == 0, name=f"layer{stage}_{i}")(x, valid)
            levels.insert(0, x)
        return tuple(levels)


class Student(nn.Module):
    """D(phi(features)), with the names of the authors' code."""

    channels: tuple[int, int, int]
    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, features, valid=None):
        embedding = Bottleneck(self.channels, self.blocks[3], self.width, name="bn")(features, valid)
        return Decoder(self.channels, self.blocks, self.width, name="decoder")(embedding, valid)


def rd4ad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    flatten: bool = True,
    epochs: int = 200,
    learning_rate: float = 0.005,
    beta1: float = 0.5,
    beta2: float = 0.999,
    schedule: str = "constant",
    warmup: float = 0.0,
    sigma: float = 4.0,
) -> Detector:
    """Builds RD4AD.

    Map: cosine distance of features, summed over the levels, in [0, 6], smoothed.

    Args:
      backbone: the teacher E; its variables are `frozen["backbone"]`. The student of a ResNet has blocks of the same kind and
        number. The student of other networks has two basic blocks per stage.
      layers: three levels, each of half the grid of the one before.
      flatten: one cosine over the flattened features of an image and level, as in the authors' code and figures. False: the
        mean of the cosines of all positions (eq. 1-2 of the paper).
      epochs, learning_rate, beta1, beta2: Adam's, section 4.1.
      schedule, warmup: of the rate over the whole run, see `families.schedules.rate_schedule`.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if len(layers) != 3:
        raise UserError(f"detector.layers must name three levels for rd4ad, got {', '.join(layers)}")
    check_options("[1, inf)", epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, 1)", beta1=beta1, beta2=beta2)
    check_options("[0, inf)", sigma=sigma)
    check_schedule(schedule, warmup)
    bottleneck, blocks, per_group = SPECS.get(backbone.name, (False, (2, 2, 2, 2), 64))

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def student(features):
        channels = tuple(level.shape[-1] for level in features)
        return Student(channels, blocks, per_group if bottleneck else 0)

    def init_variables(key, frozen, spec):
        del frozen
        sizes = [level.shape[1:3] for level in spec.features]
        if any(
            size[0] % 2 ** (3 - i) or size != (4 // 2**i * sizes[2][0], 4 // 2**i * sizes[2][1]) for i, size in enumerate(sizes)
        ):
            raise UserError(
                f"rd4ad needs three grids that halve to an even one, got {sizes}; set data.resize to a multiple of 32"
            )
        return student(spec.features).init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        features = batch.features
        restored, changed = student(features).apply(variables, features, batch.valid, mutable="batch_stats")
        # eq. 2: the sum over the levels
        total = sum(losses.cosine_distance(e, d, flatten) for e, d in zip(features, restored, strict=True))
        return losses.mean(total, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        features, size = batch.features, batch.image.shape[1:3]
        restored = student(features).apply(variables, features)
        maps = 0.0
        for e, d in zip(features, restored, strict=True):
            # eq. 1 per position, brought to the size of the image
            distance = optax.losses.cosine_distance(e, d, axis=-1, epsilon=1e-16)
            maps += ops.anomaly_map(distance, size, align_corners=True)
        maps = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        rate = rate_schedule(schedule, learning_rate, epochs * spec.steps_per_epoch, warmup)
        return optax.adam(rate, beta1, beta2)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
