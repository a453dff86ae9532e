"""CS-Flow: "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection" (Rudolph et al., WACV 2022,
arXiv 2110.02855).

A network's features of an image at three scales go through one normalising flow, whose couplings see all scales at once. Images
and positions that it maps far from the origin are anomalous.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.flow import LevelCoupling, Permutation, chain
from iadjax.nn.layers import Conv

__all__ = ["CrossConvolutions", "Flow", "csflow"]


class CrossConvolutions(nn.Module):
    """The network of a coupling (section 3.2, figure 3): a hidden layer in each scale, then sums over neighbouring scales.

    Attributes:
      channels: of the output of each scale.
      hidden: channels of the hidden layers.
      kernel: of all convolutions.
    """

    channels: tuple[int, ...]
    hidden: int
    kernel: int

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> list[jax.Array]:
        """`[B, h, w, C]` of each scale, the finest first, to the same grids."""

        def conv(features, name, stride=1):
            return Conv(features, self.kernel, stride, name=name)

        hidden = [nn.leaky_relu(conv(self.hidden, f"conv_scale{i}_0")(x), 0.1) for i, x in enumerate(levels)]
        outputs = []
        for i, (y, channels) in enumerate(zip(hidden, self.channels, strict=True)):
            total = conv(channels, f"conv_scale{i}_1")(y)
            if i + 1 < len(hidden):
                total += conv(channels, f"up_conv{i + 1}{i}")(ops.resize(hidden[i + 1], y.shape[1:3]))
            if i:
                total += conv(channels, f"down_conv{i - 1}{i}", 2)(hidden[i - 1])
            # the couplings begin as the identity
            outputs.append(total * self.param(f"gamma{i}", nn.initializers.zeros, (1,))[None, None, None])
        return outputs


class Flow(nn.Module):
    """Cross-scale couplings with a permutation of each scale's channels before each (section 3.2).

    Attributes:
      blocks: couplings.
      hidden: channels of their networks.
      clamp: of the log scales.
    """

    blocks: int
    hidden: int
    clamp: float

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], inverse: bool = False) -> tuple[list[jax.Array], jax.Array]:
        """Scales `[B, h, w, C]` to latent ones, or back, and log |det| of each image, `[B]`."""
        layers = []
        for k in range(self.blocks):
            kernel = 5 if k == self.blocks - 1 else 3

            def subnet(number, widths, kernel=kernel):
                return CrossConvolutions(tuple(widths), self.hidden, kernel, name=f"cross_convolution{number}")

            layers.append(Permutation(name=f"module_list_{2 * k}"))
            layers.append(LevelCoupling(subnet, self.clamp, name=f"module_list_{2 * k + 1}"))
        return chain(layers, levels, inverse=inverse)


def csflow(
    backbone: Backbone,
    *,
    layer: str = "stage6",
    scales: int = 3,
    coupling_blocks: int = 4,
    hidden: int = 1024,
    clamp: float = 3.0,
    localize: str = "finest",
    epochs: int = 240,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    clip_norm: float = 1.0,
) -> Detector:
    """Builds CS-Flow.

    Map: squared norm of latent vectors, the mean over channels, at the finest scale.

    Args:
      backbone: frozen network, EfficientNet-B5 in the paper; its variables are `frozen["backbone"]`.
      layer: its level.
      scales: images of the whole, half, quarter ... size (nearest neighbours), each through the network on its own. Grids must
        halve from scale to scale.
      coupling_blocks: the last coupling has kernels of 5 x 5, the others of 3 x 3.
      hidden: channels inside the couplings' networks.
      clamp: alpha, which bounds the log scales.
      localize: "finest": the finest scale alone, the authors'; "product": of all scales at the size of the image, anomalib's.
      epochs: passes over the images, 4 meta epochs of 60 in the authors' code.
      learning_rate, weight_decay: Adam's (epsilon 1e-4), with the L2 term in the gradient.
      clip_norm: largest norm of all gradients together; 0: not clipped.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or grids that do not halve.
    """
    (layer,) = check_layers(backbone, (layer,))
    check_options("[1, inf)", scales=scales, coupling_blocks=coupling_blocks, hidden=hidden, epochs=epochs)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay, clip_norm=clip_norm)
    if localize not in ("finest", "product"):
        raise UserError(f"detector.localize must be 'finest' or 'product', got {localize!r}")
    flow = Flow(coupling_blocks, hidden, clamp)

    def embed(frozen, image):
        height, width = image.shape[1:3]
        smaller = [ops.resize_nearest(image, (height >> scale, width >> scale)) for scale in range(scales)]
        return tuple(backbone.features(frozen["backbone"], each, (layer,))[0] for each in smaller)

    def init_variables(key, frozen, spec):
        del frozen
        grids = [level.shape[1:3] for level in spec.features]
        if any(fine != (2 * coarse[0], 2 * coarse[1]) for fine, coarse in zip(grids, grids[1:], strict=False)):
            raise UserError(
                f"csflow needs grids that halve from scale to scale, got {', '.join(map(str, grids))}; take images whose sides "
                f"are multiples of the stride of {layer} times {2 ** (scales - 1)}"
            )
        return flow.init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        z, log_det = flow.apply(variables, list(batch.features))
        # eq. 5 per dimension; every image has its own log |det|
        dimensions = sum(each[0].size for each in z)
        nll = losses.normal_nll(z, [log_det]) / dimensions
        return losses.mean(nll, batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        z, _ = flow.apply(variables, list(batch.features))
        # section 3.3: the mean over all dimensions of z^2 / 2
        total = sum(jnp.sum(each**2, axis=(1, 2, 3)) for each in z)
        size = batch.image.shape[1:3]
        shown = z[:1] if localize == "finest" else z
        maps = 1.0
        for each in shown:
            maps *= ops.anomaly_map(jnp.mean(each**2, axis=-1), size)
        return Prediction(0.5 * total / sum(each[0].size for each in z), maps)

    def optimizer(spec):
        del spec
        adam = adam_with_l2(learning_rate, weight_decay, eps=1e-4)
        return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
