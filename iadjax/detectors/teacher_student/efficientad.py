"""EfficientAD: "Accurate Visual Anomaly Detection at Millisecond-Level Latencies" (Batzner et al., WACV 2024, 2303.14535).

A student learns a small teacher's features of normal images (local anomalies), and the features that an autoencoder
restores through a bottleneck (global, logical ones). Both maps are put on one scale by quantiles of held-out normal images.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone
from iadjax.backbones.backbone import normalize
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, carry_variables, trainer
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.pdn import PDN, SPECS
from iadjax.synthesis.source import image_source

__all__ = ["Autoencoder", "EfficientADState", "efficientad"]

CHANNELS = 384
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class EfficientADState(NamedTuple):
    """State of EfficientAD.

    Attributes:
      count: float32 scalar; images that the running mean of the phase under way has seen.
      mean, variance: `[384]` float32, mu and sigma^2 of the teacher's channels.
      trained: {"params": {"student", "autoencoder"}} and the optimiser.
      maps: `[2, N, h, w]` float32, local and global maps of the N held-out images; `[2, 2]` after the last phase: the
        quantiles (q_a, q_b) of each.
    """

    count: jax.Array
    mean: jax.Array
    variance: jax.Array
    trained: Trained
    maps: jax.Array


class Autoencoder(nn.Module):
    """The autoencoder (table 8): 64 numbers in the middle, bilinear upsampling between convolutions, dropout behind them."""

    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        size = x.shape[1:3]
        for i, features in enumerate((32, 32, 64, 64, 64), start=1):
            x = nn.relu(Conv(features, 4, 2, 1, name=f"encoder_enconv{i}")(x))
        x = Conv(64, x.shape[1:3], padding=0, name="encoder_enconv6")(x)
        # 3, 8, 15, 32, 63, 127 and 56 for 256 pixels
        for i, (divisor, less) in enumerate(((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)), start=1):
            x = ops.resize(x, tuple(side // divisor - less for side in size))
            x = nn.relu(Conv(64, 4, padding=2, name=f"decoder_deconv{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = ops.resize(x, tuple(side // 4 - 8 for side in size))
        x = nn.relu(Conv(64, 3, name="decoder_deconv7")(x))
        return Conv(CHANNELS, 3, name="decoder_deconv8")(x)


def efficientad(
    backbone: Backbone,
    *,
    steps: int = 70000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
    decay_at: float = 0.95,
    hard_quantile: float = 0.999,
    dropout: float = 0.2,
    penalty_images: str = "",
    quantile_a: float = 0.9,
    quantile_b: float = 0.995,
) -> Detector:
    """Builds EfficientAD-S (backbone `pdn_small`) or -M (`pdn_medium`).

    The paper trains with batches of one image; with larger ones p_hard is taken per image, which is the same at one.

    Args:
      backbone: the teacher T; `scripts/distill.py` makes its weights from any backbone.
      steps: training steps (algorithm 1).
      learning_rate, weight_decay, decay_at: Adam's (with the L2 term in the gradient), and the share of the steps after which
        the rate drops to a tenth.
      hard_quantile: p_hard of section 3.2; the loss takes the mean over the hardest elements of the student's error.
      dropout: of the decoder, 0.2 in the paper (table 8).
      penalty_images: folder of images that are not of the product, ImageNet in the paper; "" draws textures.
      quantile_a, quantile_b: a and b of the map normalisation (section 3.4), reached by 0 and 0.1.

    Raises:
      UserError: an option out of its range, a backbone that is no PDN, or no image in `penalty_images`.
    """
    if backbone.name not in SPECS:
        raise UserError(
            f"efficientad's teacher is a PDN: set --config.backbone.name to {' or '.join(SPECS)}, not {backbone.name}"
        )
    if steps < 1 or not 0 < hard_quantile < 1 or not 0 <= dropout < 1 or not 0 < quantile_a < quantile_b < 1:
        raise UserError(
            "detector: steps must be positive, hard_quantile in (0, 1), dropout in [0, 1), and quantile_a < quantile_b in "
            f"(0, 1); got {steps}, {hard_quantile}, {dropout}, {quantile_a} and {quantile_b}"
        )
    source = image_source(penalty_images)
    pdn, autoencoder = PDN(backbone.name, 2 * CHANNELS), Autoencoder(dropout)
    local_head, global_head = (0, CHANNELS), (CHANNELS, 2 * CHANNELS)

    def teach(frozen, image):
        return backbone.features(frozen["backbone"], image, ("features",))[0]

    def student(params, image, channels=None):
        return pdn.apply({"params": params["student"]}, normalize(image), channels)

    def restore(params, image, **options):
        return autoencoder.apply({"params": params["autoencoder"]}, normalize(image), **options)

    def init_variables(key, frozen, spec):
        if any(side % 64 or side < 128 for side in spec.image_shape[:2]):
            raise UserError(f"efficientad needs sides that are multiples of 64 and at least 128, got {spec.image_shape[:2]}")
        image = jnp.zeros((1, *spec.image_shape))
        keys = jax.random.split(key)
        networks = {"student": pdn.init(keys[0], image), "autoencoder": autoencoder.init(keys[1], image)}
        return {"params": {name: variables["params"] for name, variables in networks.items()}}

    def loss(key, variables, frozen, batch):
        params = variables["params"]
        choice_key, factor_key, dropout_key = jax.random.split(key, 3)
        augmented = _jitter(choice_key, factor_key, batch.image)
        taught, taught_augmented = (
            (teach(frozen["teacher"], image) - frozen["mean"]) / jnp.sqrt(frozen["variance"])
            for image in (batch.image, augmented)
        )
        # eq. 1-4: L_hard, and the penalty on images that are not of the product; one pass of the student for both
        both = student(params, jnp.concatenate([batch.image, batch.extra["penalty"]]), local_head)
        output, on_penalty = jnp.split(both, 2)
        l_st = _hard_mean((taught - output) ** 2, hard_quantile) + jnp.mean(on_penalty**2, axis=(1, 2, 3))
        # eq. 5-6: the autoencoder restores the teacher, the student's other half the autoencoder
        restored = restore(params, augmented, train=True, rngs={"dropout": dropout_key})
        l_ae = losses.mse(taught_augmented, restored)
        l_stae = losses.mse(restored, student(params, augmented, global_head))
        parts = {"loss_st": l_st, "loss_ae": l_ae, "loss_stae": l_stae}
        parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
        return sum(parts.values()), ({}, parts)

    def optimizer(steps_per_epoch):
        del steps_per_epoch
        rate = step_decay(learning_rate, 0.1, int(decay_at * steps))
        return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(rate))

    init_trained, train_step = trainer(init_variables, loss, optimizer)

    def init(key, frozen, spec):
        trained = init_trained(key, frozen, spec)
        grid = jax.eval_shape(teach, frozen, jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)).shape[1:3]
        maps = jnp.zeros((2, spec.num_validation, *grid))
        return EfficientADState(jnp.zeros(()), jnp.zeros(CHANNELS), jnp.zeros(CHANNELS), trained, maps)

    def running_mean(count, mean, values, valid):
        """The mean over images so far with one more batch of `values [B, 384]`."""
        weight = valid.astype(values.dtype)
        total = count + weight.sum()
        return total, mean + jnp.sum(weight[:, None] * (values - mean), axis=0) / total

    # two passes: E[x^2] - E[x]^2 would cancel
    def update_mean(key, state, frozen, batch):
        values = teach(frozen, batch.image).mean(axis=(1, 2))
        count, mean = running_mean(state.count, state.mean, values, batch.valid)
        return state._replace(count=count, mean=mean), {"images": count}

    def update_variance(key, state, frozen, batch):
        values = ((teach(frozen, batch.image) - state.mean) ** 2).mean(axis=(1, 2))
        count, variance = running_mean(state.count, state.variance, values, batch.valid)
        return state._replace(count=count, variance=variance), {"images": count}

    def restart(key, state, frozen):
        return state._replace(count=jnp.zeros(()))

    def update_networks(key, state, frozen, batch):
        known = {"teacher": frozen, "mean": state.mean, "variance": state.variance}
        trained, info = train_step(key, state.trained, known, batch)
        return state._replace(trained=trained), info

    def augment(rng, image):
        """A foreign image, shrunk to twice the size and cropped to its centre; grey with probability 0.3."""
        height, width = image.shape[:2]
        penalty = source(rng, (2 * height, 2 * width))[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        if rng.random() < 0.3:
            penalty = np.repeat(penalty @ _GREY[:, None], 3, axis=-1)
        return {"penalty": penalty.astype(np.float32)}

    def two_maps(state, frozen, image):
        """`[2, B, h, w]`: the teacher's error and the autoencoder's, each a mean over channels."""
        params = state.trained.variables["params"]
        taught = (teach(frozen, image) - state.mean) / jnp.sqrt(state.variance)
        both = student(params, image)
        local = jnp.mean((taught - both[..., :CHANNELS]) ** 2, axis=-1)
        return jnp.stack([local, jnp.mean((restore(params, image) - both[..., CHANNELS:]) ** 2, axis=-1)])

    def calibrate(key, state, frozen, batch):
        number = state.maps.shape[1]
        slots = jnp.where(batch.valid, state.count.astype(jnp.int32) + jnp.cumsum(batch.valid) - 1, number)
        maps = state.maps.at[:, slots].set(two_maps(state, frozen, batch.image), mode="drop")
        count = state.count + jnp.sum(batch.valid)
        return state._replace(count=count, maps=maps), {"images": count}

    def quantiles(key, state, frozen):
        levels = jnp.array([quantile_a, quantile_b])
        return state._replace(maps=jnp.quantile(state.maps.reshape(2, -1), levels, axis=1).T)

    def predict(state, frozen, image):
        q_a, q_b = state.maps[:, :1, None, None], state.maps[:, 1:, None, None]
        maps = jnp.mean(0.1 * (two_maps(state, frozen, image) - q_a) / (q_b - q_a), axis=0)
        # the frame that the convolutions without padding cut off, 4 cells wide, gets zeros
        maps = jnp.pad(maps, ((0, 0), (4, 4), (4, 4)))
        maps = ops.resize(maps[..., None], image.shape[1:3])[..., 0]
        return Prediction(maps.max(axis=(1, 2)), maps)

    phases = (
        Phase("teacher mean", update_mean, restart),
        Phase("teacher variance", update_variance, restart),
        Phase("train", update_networks, steps=steps, augment=augment),
        Phase("calibrate", calibrate, quantiles, split="validation"),
    )

    def carry(fresh, old):
        return fresh._replace(trained=carry_variables(fresh.trained, old.trained))

    return Detector(init, phases, predict, carry=carry)


def _hard_mean(distance: jax.Array, quantile: float) -> jax.Array:
    """Mean over the elements of each image that are at least its quantile (linear between order statistics), `[B]`."""
    flat = distance.reshape(distance.shape[0], -1)
    number = flat.shape[1]
    # those elements are the last n - ceil(q (n - 1)); the smallest of them is a threshold that ties share
    count = number - int(np.ceil(quantile * (number - 1)))
    threshold = jax.lax.top_k(jax.lax.stop_gradient(flat), count)[0][:, -1:]
    hard = flat >= threshold
    return jnp.sum(jnp.where(hard, flat, 0), axis=1) / jnp.sum(hard, axis=1)


def _jitter(choice_key: jax.Array, factor_key: jax.Array, image: jax.Array) -> jax.Array:
    """Brightness, contrast or saturation of each image times U(0.8, 1.2)."""
    rows = image.shape[0]
    grey = jnp.sum(image * _GREY, axis=-1, keepdims=True)
    bases = jnp.stack(
        [
            jnp.zeros_like(image),
            jnp.broadcast_to(grey.mean((1, 2, 3), keepdims=True), image.shape),
            jnp.broadcast_to(grey, image.shape),
        ]
    )
    base = bases[jax.random.randint(choice_key, (rows,), 0, 3), jnp.arange(rows)]
    factor = jax.random.uniform(factor_key, (rows, 1, 1, 1), minval=0.8, maxval=1.2)
    return jnp.clip(factor * image + (1 - factor) * base, 0, 1)
