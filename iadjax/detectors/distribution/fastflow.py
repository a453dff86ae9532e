"""FastFlow: "Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows" (Yu et al., 2021, arXiv 2111.07677).

For each level, a two-dimensional normalising flow maps the features of normal images to a standard normal distribution.
Features that it maps far from the origin are anomalous.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.cpu.dispatch import loops
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2, check_schedule, rate_schedule
from iadjax.nn.flow import AllInOneBlock, chain, convolutions, repeated

__all__ = ["Flow", "fastflow"]


class Flow(nn.Module):
    """The flow of one level (section 3.2 and table 2): `steps` couplings, whose kernels alternate between 3 and 1.

    Attributes:
      steps: number of couplings.
      conv3x3_only: no 1 x 1 kernels.
      hidden_ratio, clamp: of each coupling.
    """

    steps: int
    conv3x3_only: bool
    hidden_ratio: float
    clamp: float

    @nn.compact
    def __call__(self, x: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """`[B, h, w, C]` to the latent z, or back, and log |det| of the Jacobian `[B]`."""
        kernels = [3 if self.conv3x3_only or i % 2 == 0 else 1 for i in range(self.steps)]
        subnets = [convolutions(kernel, self.hidden_ratio) for kernel in kernels]
        names = [f"module_list_{i}" for i in range(self.steps)]
        if self.is_initializing() or not loops():
            blocks = [AllInOneBlock(subnet, self.clamp, name=name) for subnet, name in zip(subnets, names, strict=True)]
            return chain(blocks, x, inverse=inverse)
        blocks = [AllInOneBlock(subnet, self.clamp, parent=None) for subnet in subnets]
        variables = [{kind: layers[name] for kind, layers in self.variables.items()} for name in names]
        return repeated(blocks, variables, x, period=1 if self.conv3x3_only else 2, inverse=inverse)


class Flows(nn.Module):
    """A norm and a flow for each level."""

    flow: tuple
    layer_norm: bool

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        latents, log_dets = [], []
        for i, x in enumerate(levels):
            if self.layer_norm:
                # over channels and positions, with a weight for every one of them
                norm = nn.LayerNorm(1e-5, reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3), name=f"norms_{i}")
                x = norm(x)
            z, log_det = Flow(*self.flow, name=f"nf_flows_{i}")(x)
            latents.append(z)
            log_dets.append(log_det)
        return latents, log_dets


def fastflow(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    flow_steps: int = 8,
    conv3x3_only: bool = True,
    hidden_ratio: float = 1.0,
    clamp: float = 2.0,
    layer_norm: bool = True,
    epochs: int = 500,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-5,
    schedule: str = "constant",
    warmup: float = 0.0,
) -> Detector:
    """Builds FastFlow.

    Map: negative density per dimension up to its constant, in [-1, 0], mean over the levels.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`. Figures of Gathierry's code are the common reference.
        Its version of timm gives Wide ResNet-50-2 the weights `timm/wide_resnet50_2.racm_in1k`. The default here is
        torchvision's first version.
      layers: levels of a CNN, or one block of a ViT behind the network's last norm: "block8.norm" of DeiT, "block41.norm"
        of CaiT (blocks 7 and 40 of the paper, counted from 0).
      flow_steps: couplings per level: 8 for a CNN, 20 for a ViT in the paper (table 2).
      conv3x3_only: True for ResNet-18 in the published configurations, False (3 x 3 and 1 x 1 alternate) for Wide ResNet-50-2.
      hidden_ratio: channels inside a coupling's network, as a multiple of the half of the channels that it sees: 1.0 for
        CNNs, 0.16 for ViTs.
      clamp: of the couplings.
      layer_norm: a trained norm over channels and positions before each flow. The paper does not have it, but every
        implementation that reaches its figures does. Off for ViTs, which have a last norm of their own. It binds the model to
        one size of the input.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient.
      schedule, warmup: of the rate over the whole run, see `families.schedules.rate_schedule`.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", flow_steps=flow_steps, epochs=epochs)
    check_options("(0, inf)", hidden_ratio=hidden_ratio, clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)
    check_schedule(schedule, warmup)
    flows = Flows((flow_steps, conv3x3_only, hidden_ratio, clamp), layer_norm)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        del frozen
        return flows.init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        z, log_det = flows.apply(variables, batch.features)
        # eq. 2: -log p, summed over levels and not divided by their dimensions
        return losses.mean(losses.normal_nll(z, log_det), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        latents, _ = flows.apply(variables, batch.features)
        maps = 0.0
        for z in latents:
            # the density of a position up to its constant, per dimension; its negative is the score
            density = jnp.exp(-0.5 * jnp.mean(z**2, axis=-1))
            maps -= ops.anomaly_map(density, batch.image.shape[1:3]) / len(latents)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        rate = rate_schedule(schedule, learning_rate, epochs * spec.steps_per_epoch, warmup)
        return adam_with_l2(rate, weight_decay)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
