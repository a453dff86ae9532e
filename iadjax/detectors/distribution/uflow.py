"""U-Flow: "A U-shaped Normalizing Flow for Anomaly Detection with Unsupervised Threshold" (Tailanian et al., JMIV 2024,
arXiv 2211.12353).

One normalising flow goes from the coarsest level of a network up to the finest. After each stage half of the channels are
latent, and the others join the next level. A contrario theory tells which regions of the latent space are no chance.
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
from iadjax.nn.flow import AllInOneBlock, chain, convolutions

__all__ = ["Flow", "Network", "uflow"]


class Flow(nn.Module):
    """The U-shaped flow (section 3.2).

    Attributes:
      channels: of the levels, the finest first.
      steps: couplings of a stage, whose kernels alternate between 3 and 1.
      hidden_ratio, clamp: of each coupling.
    """

    channels: tuple[int, ...]
    steps: int
    hidden_ratio: float
    clamp: float

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], inverse: bool = False) -> tuple[list[jax.Array], jax.Array]:
        """Levels `[B, h, w, C]`, the finest first, to latent ones on the same grids, or back, and log |det| `[B]`."""
        last = len(self.channels) - 1
        widths, raised = [0] * last + [self.channels[-1]], [0] * (last + 1)
        for i in range(last, 0, -1):
            raised[i] = widths[i] // 8 * 4
            widths[i - 1] = self.channels[i - 1] + raised[i] // 4

        def stage(i, x):
            # numbers as in the authors' list: split, enlarge and concatenate follow each stage
            names = [f"module_list_{(last - i) * (self.steps + 3) + k}" for k in range(self.steps)]
            subnets = [convolutions(1 if k % 2 else 3, self.hidden_ratio) for k in range(self.steps)]
            blocks = [AllInOneBlock(subnet, self.clamp, name=name) for subnet, name in zip(subnets, names, strict=True)]
            return chain(blocks, x, inverse=inverse)

        outputs, total = [], 0.0
        if inverse:
            x = levels[0]
            for i in range(last + 1):
                x, log_det = stage(i, x)
                total += log_det
                outputs.append(x[..., : self.channels[i]])
                if i < last:
                    x = jnp.concatenate([shrunk(x[..., self.channels[i] :]), levels[i + 1]], axis=-1)
        else:
            x = levels[-1]
            for i in range(last, -1, -1):
                x, log_det = stage(i, x)
                total += log_det
                outputs.insert(0, x[..., raised[i] :])
                if i:
                    x = jnp.concatenate([levels[i - 1], enlarged(x[..., : raised[i]])], axis=-1)
        return outputs, total


def enlarged(x: jax.Array) -> jax.Array:
    """`[B, h, w, 4 C]` to `[B, 2 h, 2 w, C]`: four channels become a block of 2 x 2 positions."""
    batch, height, width, depth = x.shape
    x = x.reshape(batch, height, width, depth // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, depth // 4)


def shrunk(x: jax.Array) -> jax.Array:
    """The inverse of `enlarged`."""
    batch, height, width, depth = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, depth).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height // 2, width // 2, 4 * depth)


class Network(nn.Module):
    """A norm for each level, and the flow.

    Attributes:
      flow: arguments of `Flow` behind the channels.
      layer_norm: whether there are norms.
    """

    flow: tuple
    layer_norm: bool

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
        """Levels `[B, h, w, C]` to latent ones, and log |det| of the flow `[B]`."""
        if self.layer_norm:
            # over channels and positions, with a weight for every one of them
            axes = {"reduction_axes": (1, 2, 3), "feature_axes": (1, 2, 3)}
            levels = [nn.LayerNorm(1e-5, name=f"norms_{i}", **axes)(x) for i, x in enumerate(levels)]
        return Flow(tuple(x.shape[-1] for x in levels), *self.flow, name="flow")(levels)


def uflow(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    flow_steps: int = 4,
    hidden_ratio: float = 1.0,
    clamp: float = 2.0,
    layer_norm: bool = True,
    scores: str = "likelihood",
    epochs: int = 200,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
    final_rate: float = 0.4,
) -> Detector:
    """Builds U-Flow.

    Map: 1 - likelihood of a position relative to the likeliest one, mean over the levels; or -log10 NFA.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`. The authors' best features are those of two CaiTs, which
        see the image at two sizes; their code has ResNets too, as here.
      layers: levels, the finest first, whose grids halve.
      flow_steps: couplings of each stage.
      hidden_ratio: channels inside a coupling's network, as a multiple of the half of the channels that it sees.
      clamp: of the couplings.
      layer_norm: a trained norm over channels and positions before the flow, which binds the model to one size of the input.
      scores: "likelihood": of positions (section 3.3). "nfa": the number of false alarms of the most meaningful region around
        each position, as -log10 (section 3.4); then the threshold rule "a_contrario" holds. The authors' bound makes
        regions meaningful whose values are below their expectation as well; here they are not. Its search takes a step for
        each position above expectation.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient. The authors have rates and batches for each
        category, and select the epoch on the test set.
      final_rate: fraction of the rate at the end, to which it falls linearly. The authors' schedule counts epochs as steps,
        so that their rate hardly falls: 1.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or grids that do not halve.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", flow_steps=flow_steps, epochs=epochs)
    check_options("(0, inf)", hidden_ratio=hidden_ratio, clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)
    check_options("(0, 1]", final_rate=final_rate)
    if scores not in ("likelihood", "nfa"):
        raise UserError(f"detector.scores must be 'likelihood' or 'nfa', got {scores!r}")
    network = Network((flow_steps, hidden_ratio, clamp), layer_norm)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        del frozen
        grids = [level.shape[1:3] for level in spec.features]
        if any(fine != (2 * coarse[0], 2 * coarse[1]) for fine, coarse in zip(grids, grids[1:], strict=False)):
            raise UserError(f"uflow needs grids that halve from level to level, got {', '.join(map(str, grids))}")
        return network.init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        z, log_det = network.apply(variables, batch.features)
        # eq. 4: every image has its own log |det|
        return losses.mean(losses.normal_nll(z, [log_det]), batch.valid), ({}, {})

    def likelihood(z, size):
        maps = 0.0
        for each in z:
            maps += ops.anomaly_map(jnp.exp(-0.5 * jnp.mean(each**2, axis=-1)), size) / len(z)
        return 1 - maps

    def false_alarms(z, size):
        tests = ops.log10_region_tests(tuple(each.shape[1] * each.shape[2] for each in z))
        found = [ops.region_log10_probability(jnp.sum(each**2, axis=-1), each.shape[-1]) for each in z]
        return -tests - jnp.min(jnp.stack([ops.anomaly_map(each, size) for each in found]), axis=0)

    def predict(variables, frozen, batch):
        del frozen
        z, _ = network.apply(variables, batch.features)
        maps = (false_alarms if scores == "nfa" else likelihood)(z, batch.image.shape[1:3])
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return adam_with_l2(optax.linear_schedule(learning_rate, final_rate * learning_rate, steps), weight_decay)

    detector = gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
    return detector._replace(false_alarms=scores == "nfa")
