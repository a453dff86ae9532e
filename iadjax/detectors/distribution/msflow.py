"""MSFlow: "Multi-Scale Flow-based Framework for Unsupervised Anomaly Detection" (Zhou et al., TNNLS 2024, arXiv 2308.15300).

Each level of a frozen network has a normalising flow of its own, conditioned on positions. One coupling then fuses all levels.
Maps add the likelihoods of levels, image scores multiply them.
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
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.errors import UserError
from iadjax.nn.flow import AllInOneBlock, LevelCoupling, Permutation, chain, convolutions, position_codes
from iadjax.nn.layers import Conv

__all__ = ["Flows", "Fusion", "msflow"]


class Fusion(nn.Module):
    """The network of the fusing coupling (section III-C): all levels on the coarsest grid, two convolutions, and back."""

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> list[jax.Array]:
        """`[B, h, w, C]` of each level to `[B, h, w, 2 C]`, log scales and shifts."""
        widths, coarsest = [x.shape[-1] for x in levels], levels[-1].shape[1:3]
        total = sum(widths)
        y = jnp.concatenate([ops.adaptive_average_pool(x, coarsest) for x in levels], axis=-1)
        y = nn.relu(nn.LayerNorm(1e-5, name="norm")(Conv(max(1, total // 4), name="conv1")(y)))
        y = nn.relu(Conv(total, name="conv2")(y))
        outputs, start = [], 0
        for i, (x, width) in enumerate(zip(levels, widths, strict=True)):
            fused = x + ops.resize(y[..., start : start + width], x.shape[1:3], align_corners=True)
            parts = [Conv(width, name=f"conv_{name}_{i}")(fused) for name in "st"]
            outputs.append(jnp.concatenate(parts, axis=-1))
            start += width
        return outputs


class Flows(nn.Module):
    """The flows of the levels and the coupling behind them.

    Attributes:
      blocks: couplings of each level.
      condition: channels of the position's code.
      clamp: of the log scales.
    """

    blocks: tuple[int, ...]
    condition: int
    clamp: float

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], inverse: bool = False) -> tuple[list[jax.Array], jax.Array]:
        """Levels `[B, h, w, C]` to latent ones, or back, and log |det| of each image `[B]`."""
        fusing = [
            Permutation(name="permute"),
            LevelCoupling(lambda i, _: Fusion(name=f"subnet_{i}"), self.clamp, name="fusion"),
        ]

        def parallel(levels):
            outputs, total = [], 0.0
            for i, (x, blocks) in enumerate(zip(levels, self.blocks, strict=True)):
                code = position_codes(x, self.condition)
                names = [f"parallel_{i}_{k}" for k in range(blocks)]
                layers = [AllInOneBlock(convolutions(norm=True), self.clamp, name=name) for name in names]
                y, log_det = chain(layers, x, code, inverse=inverse)
                outputs.append(y)
                total += log_det
            return outputs, total

        if inverse:
            levels, fused = chain(fusing, levels, inverse=True)
            levels, total = parallel(levels)
        else:
            levels, total = parallel(levels)
            levels, fused = chain(fusing, levels)
        return levels, total + fused


def msflow(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    blocks: Sequence[int] = (2, 5, 8),
    condition_dimension: int = 64,
    clamp: float = 1.9,
    top: float = 0.03,
    epochs: int = 100,
    learning_rate: float = 1e-4,
    warmup: float = 0.12,
    decay_at: Sequence[float] = (0.7, 0.9),
    decay: float = 0.33,
    clip_norm: float = 2.0,
) -> Detector:
    """Builds MSFlow.

    Map: likelihoods of levels relative to the likeliest position of the image, added; their largest sum less the sum.

    Map and score are relative to the likeliest position of the same image, as in the authors' code. So they say how uneven an
    image is, and do not depend on others.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: its levels, averaged over 3 x 3 with stride 2 and zeros outside.
      blocks: couplings of each level.
      condition_dimension: channels of the position's code, a multiple of 4.
      clamp: alpha, which bounds the log scales.
      top: fraction of the pixels, in (0, 1], whose mean is the score.
      epochs: passes over the images, 25 meta epochs of 4 in the authors' code.
      learning_rate: Adam's.
      warmup: fraction of the epochs in which the rate rises linearly from a tenth, in [0, 1).
      decay_at, decay: fractions of the epochs at which the rate is multiplied by `decay`. It changes between epochs alone.
      clip_norm: largest norm of all gradients together; 0: not clipped.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or another number of levels than blocks.
    """
    layers, blocks = check_layers(backbone, layers), tuple(blocks)
    check_options("[1, inf)", epochs=epochs, **{f"blocks[{i}]": number for i, number in enumerate(blocks)})
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", clip_norm=clip_norm)
    check_options("[0, 1)", warmup=warmup)
    check_options("(0, 1]", top=top, decay=decay, **{f"decay_at[{i}]": at for i, at in enumerate(decay_at)})
    if len(blocks) != len(layers):
        raise UserError(f"detector.blocks needs a number for each of the {len(layers)} layers, got {len(blocks)}")
    check_multiple(4, condition_dimension=condition_dimension)
    flows = Flows(blocks, condition_dimension, clamp)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        return tuple(ops.average_pool(level)[:, ::2, ::2] for level in levels)

    def init_variables(key, frozen, spec):
        del frozen
        if any(level.shape[-1] % 2 for level in spec.features):
            raise UserError("msflow needs levels with an even number of channels; name other ones with detector.layers")
        return flows.init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        z, log_det = flows.apply(variables, list(batch.features))
        # eq. 8: the sum over all dimensions
        nll = losses.normal_nll(z, [log_det])
        return losses.mean(nll, batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        z, _ = flows.apply(variables, list(batch.features))
        size = batch.image.shape[1:3]
        largest = lambda x: jnp.max(x, axis=(1, 2), keepdims=True)  # noqa: E731
        added, log_product = 0.0, 0.0
        for each in z:
            log_p = -0.5 * jnp.mean(each**2, axis=-1)
            added += ops.anomaly_map(jnp.exp(log_p - largest(log_p)), size, align_corners=True)
            log_product += ops.anomaly_map(log_p, size, align_corners=True)
        # section III-D: sums localise, products of all levels detect
        product = 1 - jnp.exp(log_product - largest(log_product))
        return Prediction(ops.top_mean(product.reshape(len(product), -1), top), largest(added) - added)

    def optimizer(spec):
        rising = max(round(warmup * epochs), 1) if warmup else 0

        def rate(step):
            epoch = (step // spec.steps_per_epoch).astype(jnp.float32)
            factor = 0.1 + 0.9 * jnp.minimum(epoch / rising, 1.0) if rising else 1.0
            for at in decay_at:
                factor *= jnp.where(epoch >= round(at * epochs), decay, 1.0)
            return learning_rate * factor

        adam = optax.adam(rate)
        return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
