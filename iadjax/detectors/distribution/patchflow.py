"""PatchFlow: "Leveraging a Flow-Based Model with Patch Features" (Zhang et al., 2026, arXiv 2602.05238).

A frozen network sees the image at several sizes. Its levels, averaged over neighbours, meet on one grid, and an adaptor reduces
their channels. A short normalising flow maps these patch features to a standard normal distribution.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.flow import AllInOneBlock, chain
from iadjax.nn.layers import Conv, uniform_bias, uniform_fan_in
from iadjax.nn.norms import BatchNorm

__all__ = ["Adaptor", "Flow", "PatchFlow", "patchflow"]


class Adaptor(nn.Module):
    """A 1 x 1 convolution of all levels on the finest grid.

    Enlarging is linear, and so is the convolution. So each level meets its part of the kernel on its own grid, and is enlarged
    after that. This gives the same numbers, and for the paper's levels takes a tenth of the multiplications.

    Attributes:
      dimension: channels of the output.
      align_corners: of the enlargement.
    """

    dimension: int
    align_corners: bool

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> jax.Array:
        """Levels `[B, h, w, C]`, the finest first, to `[B, H, W, dimension]`."""
        depths = [level.shape[-1] for level in levels]
        kernel = self.param("kernel", uniform_fan_in, (1, 1, sum(depths), self.dimension))[0, 0]
        total, start = 0.0, 0
        for level, depth in zip(levels, depths, strict=True):
            part = jnp.matmul(level, kernel[start : start + depth], precision="highest")
            total += ops.resize(part, levels[0].shape[1:3], align_corners=self.align_corners)
            start += depth
        return total + ops.per_channel(self.param("bias", uniform_bias(sum(depths)), (self.dimension,)), total)


class Flow(nn.Module):
    """The flow behind the adaptor.

    Attributes:
      steps: couplings.
      hidden: channels inside the network of a coupling.
      clamp: of the couplings.
    """

    steps: int
    hidden: int
    clamp: float

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, C]` to the latent z, or back, and log |det| of this direction `[B]`.

        Args:
          x: adapted features, or z.
          valid: `[B]`, the rows that give the statistics of norms; None: the running ones.
          inverse: from z.
        """

        def bottleneck(enter: int, leave: int) -> Callable:
            del enter
            first, second = Conv(self.hidden, name="subnet_0"), Conv(leave, name="subnet_1")
            norm = BatchNorm(name="subnet_2")
            return lambda x: nn.leaky_relu(norm(second(first(x)), valid), 0.2)

        blocks = [AllInOneBlock(bottleneck, self.clamp, name=f"module_list_{i}") for i in range(self.steps)]
        return chain(blocks, x, inverse=inverse)


class PatchFlow(nn.Module):
    """The adaptor and the flow.

    Attributes:
      dimension, align_corners: of the adaptor.
      flow: (steps, hidden, clamp).
    """

    dimension: int
    align_corners: bool
    flow: tuple[int, int, float]

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], valid: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Levels `[B, h, w, C]`, the finest first, to the latent z `[B, H, W, dimension]` and log |det| of the flow `[B]`."""
        adapted = Adaptor(self.dimension, self.align_corners, name="feature_adaptor")(levels)
        return Flow(*self.flow, name="flow")(adapted, valid)


def patchflow(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("stage3", "stage4", "stage6"),
    num_scales: int = 3,
    interpolation: str = "nearest",
    align_corners: bool = True,
    patch_size: int = 3,
    dimension: int = 128,
    flow_steps: int = 1,
    hidden: int = 128,
    clamp: float = 2.0,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
) -> Detector:
    """Builds PatchFlow.

    Map: negative density per dimension up to its constant, in [-1, 0].

    In training the norms inside the couplings have the statistics of the batch, as in the authors' code.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`. The paper's is EfficientNet-B5.
      layers: its levels, the finest first.
      num_scales: sizes of the image that the network sees, each half of the one before.
      interpolation: how the image is made smaller: "nearest" in the authors' code, "bilinear" in anomalib.
      align_corners: how levels and map are enlarged: True in the authors' code, False in anomalib.
      patch_size: side of the windows over which levels are averaged, odd; zeros at the border count.
      dimension: channels behind the adaptor.
      flow_steps: couplings of the flow.
      hidden: channels inside the network of a coupling, its bottleneck.
      clamp: of the couplings.
      epochs: passes over the images. The paper's number is not known: an example of the authors has 10. They keep the epoch
        with the best pixel AUROC on the test images; here it is the last.
      learning_rate, weight_decay: Adam's, with the L2 term in the gradient.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or an image that is too small.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", num_scales=num_scales, patch_size=patch_size, flow_steps=flow_steps, hidden=hidden, epochs=epochs)
    check_options("[2, inf)", dimension=dimension)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)
    if interpolation not in ("nearest", "bilinear"):
        raise UserError(f"detector.interpolation must be 'nearest' or 'bilinear', got {interpolation!r}")
    if patch_size % 2 == 0:
        raise UserError(f"detector.patch_size must be odd, got {patch_size}")
    network = PatchFlow(dimension, align_corners, (flow_steps, hidden, clamp))
    smaller = ops.resize_nearest if interpolation == "nearest" else ops.resize

    def embed(frozen, image):
        levels = []
        for scale in range(num_scales):
            height, width = (side // 2**scale for side in image.shape[1:3])
            if min(height, width) < 16:
                raise UserError(
                    f"detector.num_scales={num_scales} makes images of {height} x {width}; take fewer or larger ones"
                )
            levels += backbone.features(frozen["backbone"], smaller(image, (height, width)), layers)
        return tuple(ops.average_pool(level, patch_size) for level in levels)

    def init_variables(key, frozen, spec):
        del frozen
        return network.init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        (z, log_det), changed = network.apply(variables, batch.features, batch.valid, mutable="batch_stats")
        # per dimension, so that rates do not depend on the size of images
        nll = losses.normal_nll([z], [log_det]) / z[0].size
        return losses.mean(nll, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        z, _ = network.apply(variables, batch.features)
        density = jnp.exp(-0.5 * jnp.mean(z**2, axis=-1))
        maps = ops.anomaly_map(-density, batch.image.shape[1:3], align_corners=align_corners)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return adam_with_l2(learning_rate, weight_decay)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
