"""SuperSimpleNet: "Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface Defect Detection" (Rolih et
al., ICPR 2024, arXiv 2408.03143).

One linear layer adapts the features of images. One head segments the patches to which noise was added, and labelled defects
where there are any. A second head says whether the image is anomalous.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import copy_variables, gradient_phase, init_trained, mean_variables
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.nn.layers import Conv, uniform_bias
from iadjax.nn.norms import BatchNorm
from iadjax.parallel.axis import all_sum, own_rows
from iadjax.synthesis.feature_noise import gaussian_noise
from iadjax.synthesis.perlin import perlin_noise

__all__ = ["SuperSimpleNet", "supersimplenet", "truncated_l1_of_patches"]


def _conv(features: int, kernel: int, name: str, bias: bool = True) -> Conv:
    """Weights are drawn by Xavier's rule, biases by PyTorch's default, as in the authors' code."""
    return Conv(features, kernel, bias=bias, kernel_init=nn.initializers.xavier_normal(), name=name)


class SuperSimpleNet(nn.Module):
    """The adaptor (section 3.1), the segmentation and the classification head (section 3.3).

    Attributes:
      hidden, width: channels inside the segmentation and the classification head.
      stop_gradient: whether the classification head sends no gradient into the map.
      classify_adapted: whether it sees adapted features.
    """

    hidden: int
    width: int
    stop_gradient: bool
    classify_adapted: bool

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array | None = None, valid: jax.Array | None = None):
        """Features `[B, h, w, C]`, to which noise is added once they are adapted, to logits `[B, h, w]` and `[B]`."""
        adapted = _conv(x.shape[-1], 1, "adaptor")(x)
        if noise is not None:
            adapted, x = adapted + noise, x + noise
        y = nn.leaky_relu(BatchNorm(name="seg_1")(_conv(self.hidden, 1, "seg_0")(adapted), valid), 0.2)
        logits = _conv(1, 1, "seg_3", bias=False)(y)
        seen = jax.lax.stop_gradient(logits) if self.stop_gradient else logits
        y = jnp.concatenate([adapted if self.classify_adapted else x, seen], axis=-1)
        y = nn.relu(BatchNorm(name="cls_conv_1")(_conv(self.width, 5, "cls_conv_0")(y), valid))
        pooled = [reduce(each, axis=(1, 2)) for each in (y, seen) for reduce in (jnp.max, jnp.mean)]
        pooled = jnp.concatenate(pooled, axis=-1)
        bias = uniform_bias(pooled.shape[-1])
        score = nn.Dense(1, kernel_init=nn.initializers.xavier_normal(), bias_init=bias, name="cls_fc")(pooled)
        return logits[..., 0], score[..., 0]


def supersimplenet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    patch_size: int = 3,
    align_corners: bool = True,
    hidden: int = 1024,
    width: int = 128,
    classify_adapted: bool = True,
    stop_gradient: bool = True,
    noise_std: float = 0.015,
    perlin_threshold: float = 0.2,
    th: float = 0.5,
    anomaly_fraction: float = 0.0,
    flip: bool = False,
    epochs: int = 300,
    steps: int = 0,
    adaptor_rate: float = 1e-4,
    learning_rate: float = 2e-4,
    gamma: float = 0.4,
    clip_norm: float = 0.0,
    sigma: float = 4.0,
) -> Detector:
    """Builds SuperSimpleNet.

    Map: logit of the segmentation head, positive where a patch looks anomalous, smoothed.

    The defaults are those of the authors' code without labels (github.com/blaz-r/SuperSimpleNet, MIT). With labels they set
    stop_gradient=False, perlin_threshold=0.6, clip_norm=1, flip=True, and half of each batch is anomalous.

    Args:
      backbone: the feature extractor; its variables are `frozen["backbone"]`.
      layers: its levels, enlarged to twice the grid of the first one.
      patch_size: side of the mean over the neighbourhood of a position, odd.
      align_corners: how levels are enlarged: as in the authors' code, or with half-pixel centres as in anomalib.
      hidden, width: channels inside the segmentation and the classification head.
      classify_adapted: whether the classification head sees adapted features, as in this paper, or the plain ones, as in its
        extension (Rolih et al., Journal of Intelligent Manufacturing 2025) and anomalib.
      stop_gradient: whether that head sends no gradient into the map.
      noise_std: standard deviation of the noise that makes anomalous features (section 3.2).
      perlin_threshold: noise is added where Perlin noise, about in [-1, 1], is above it; in half of the copies nowhere.
      th: truncation of the L1 loss of patches (eq. 2).
      anomaly_fraction: fraction of a batch that is labelled anomalies, with masks; it needs `protocol.name="supervised"`.
      flip: whether labelled anomalies are mirrored, turned by 180 degrees or left, one of four at random.
      epochs, steps: passes over the normal images; `steps` above 0: that many steps instead.
      adaptor_rate, learning_rate: of AdamW for the adaptor, with PyTorch's default weight decay 1e-2, and for the heads, with
        1e-5.
      gamma: factor of both rates after 80 % and again after 90 % of the steps.
      clip_norm: largest norm of the gradient; 0: not clipped.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", hidden=hidden, width=width, epochs=epochs)
    check_options("(0, inf)", noise_std=noise_std, th=th, adaptor_rate=adaptor_rate, learning_rate=learning_rate)
    check_options("[0, inf)", steps=steps, clip_norm=clip_norm, sigma=sigma)
    check_options("[0, 1)", anomaly_fraction=anomaly_fraction, perlin_threshold=perlin_threshold)
    check_options("(0, 1]", gamma=gamma)
    check_odd(patch_size=patch_size)
    network = SuperSimpleNet(hidden, width, stop_gradient, classify_adapted)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def upscaled(levels):
        # after `embed`: the features that the driver may keep are a ninth of these
        grid = _grid(levels)
        resized = [ops.resize(level, grid, align_corners=align_corners) for level in levels]
        return ops.average_pool(jnp.concatenate(resized, axis=-1), patch_size)

    def init_variables(key, frozen, spec):
        del frozen
        return network.init(key, jnp.zeros(jax.eval_shape(upscaled, spec.features).shape))

    def augment(grid):
        def draw_masks(rng, image, draw):
            del image, draw
            return {"perlin": np.stack([draw_mask(rng, grid, perlin_threshold) for _ in range(2)])}

        return draw_masks

    def loss(key, variables, frozen, batch):
        noise_key, flip_key = jax.random.split(key)
        levels, mask = batch.features, batch.mask[..., None].astype(jnp.float32)
        if flip:
            image, mask = flipped(flip_key, (batch.image, mask), batch.label)
            levels = embed(frozen, image)
        features = upscaled(levels)
        grid = features.shape[1:3]
        # section 3.2: two copies of every image, with noise where Perlin noise is high and no labelled defect is
        true = (ops.resize(mask, grid)[..., 0] >= 0.5).astype(jnp.float32)
        added = jnp.swapaxes(batch.extra["perlin"], 0, 1).astype(jnp.float32) * (1 - true[None])
        noise = [gaussian_noise(each, jnp.zeros_like(features), noise_std) for each in jax.random.split(noise_key)]
        noise = jnp.concatenate(noise) * jnp.concatenate(added)[..., None]
        target = jnp.concatenate(jnp.maximum(added, true[None]))
        labels = jnp.maximum(jnp.tile(batch.label, 2).astype(jnp.float32), target.max(axis=(1, 2)))
        valid = jnp.tile(batch.valid, 2)
        (logits, scores), changed = network.apply(
            variables, jnp.tile(features, (2, 1, 1, 1)), noise, valid, mutable="batch_stats"
        )
        # eq. 3 and 4: L_seg = L1_t + L_focal, L = L_seg + L_cls
        focal = [optax.losses.sigmoid_focal_loss(x, y, gamma=4.0) for x, y in ((logits, target), (scores, labels))]
        parts = {
            "loss_l1": truncated_l1_of_patches(logits, target, valid, th),
            "loss_focal": losses.mean(focal[0].mean(axis=(1, 2)), valid),
            "loss_score": losses.mean(focal[1], valid),
        }
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        levels = embed(frozen, batch.image) if flip else batch.features
        logits, score = network.apply(variables, upscaled(levels))
        return Prediction(jax.nn.sigmoid(score), ops.anomaly_map(logits, batch.image.shape[1:3], sigma))

    def optimizer(spec):
        total = steps or epochs * spec.steps_per_epoch
        rates = [step_decay(rate, gamma, 0.8 * total, 0.9 * total) for rate in (adaptor_rate, learning_rate)]
        both = {"adaptor": optax.adamw(rates[0], weight_decay=1e-2), "heads": optax.adamw(rates[1], weight_decay=1e-5)}
        trained = optax.multi_transform(
            both, lambda params: {name: "adaptor" if name == "adaptor" else "heads" for name in params}
        )
        return optax.chain(optax.clip_by_global_norm(clip_norm), trained) if clip_norm else trained

    def init(key, frozen, spec):
        return init_trained(init_variables(key, frozen, spec), optimizer(spec))

    def phases(spec):
        fields = {"epochs": epochs, "steps": steps, "anomaly_fraction": anomaly_fraction}
        return (gradient_phase(loss, optimizer(spec), augment=augment(_grid(spec.features)), needs_image=True, **fields),)

    return Detector(
        init=init,
        phases=phases,
        predict=lambda state, frozen, batch: predict(state.variables, frozen, batch),
        embed=embed,
        warm_start=copy_variables,
        merge=mean_variables,
    )


def _grid(levels: Sequence[jax.Array]) -> tuple[int, int]:
    """Twice the grid of the first level."""
    return 2 * levels[0].shape[1], 2 * levels[0].shape[2]


def draw_mask(rng: np.random.Generator, grid: tuple[int, int], threshold: float) -> np.ndarray:
    """Where noise is added, `[h, w]` uint8 in {0, 1}: nowhere in half of the draws, else where Perlin noise is high."""
    cells = tuple(min(2 ** int(rng.integers(6)), side) for side in grid)
    mask = perlin_noise(rng, grid, cells) > threshold
    return (mask & (rng.random() < 0.5)).astype(np.uint8)


def flipped(key: jax.Array, arrays: Sequence[jax.Array], label: jax.Array) -> list[jax.Array]:
    """Arrays `[B, H, W, C]`, all mirrored alike, along none, one or both axes, in rows with the label 1."""
    ways = own_rows(lambda rows: jax.random.bernoulli(key, shape=(rows, 2)), len(label)) & (label == 1)[:, None]
    for axis in (0, 1):
        way = ways[:, axis, None, None, None]
        arrays = [jnp.where(way, jnp.flip(x, axis + 1), x) for x in arrays]
    return list(arrays)


def truncated_l1_of_patches(logits: jax.Array, target: jax.Array, valid: jax.Array, th: float) -> jax.Array:
    """Truncated L1 (eq. 2): the mean over all normal patches of a batch, and that over all anomalous ones.

    Args:
      logits: `[B, h, w]`, positive for anomalous patches.
      target: `[B, h, w]` in {0, 1}.
      valid: `[B]`, the rows that count.
      th: truncation.
    """
    total = 0.0
    for label, sign in ((0, 1), (1, -1)):
        where = (target == label) & valid[:, None, None]
        number = jnp.maximum(all_sum(jnp.sum(where)), 1).astype(logits.dtype)
        total += jnp.sum(jnp.where(where, jnp.maximum(sign * logits + th, 0), 0)) / number
    return total
