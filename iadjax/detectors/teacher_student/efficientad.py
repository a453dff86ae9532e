"""EfficientAD: "Accurate Visual Anomaly Detection at Millisecond-Level Latencies" (Batzner et al., WACV 2024, 2303.14535).

A student learns the features of a small teacher on normal images, which shows local anomalies. It also learns the features
that an autoencoder restores, which shows logical ones. Quantiles of held-out normal images put both maps on one scale.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.backbones import Backbone
from iadjax.backbones.backbone import normalize
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2, step_decay
from iadjax.errors import UserError
from iadjax.nn.pdn import CHANNELS, PDN, SPECS, Autoencoder
from iadjax.parallel.axis import all_rows, own_rows
from iadjax.synthesis.appearance import grey
from iadjax.synthesis.source import image_source

__all__ = ["Calibrated", "Training", "efficientad"]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Training(NamedTuple):
    """State of EfficientAD while it is fitted.

    Attributes:
      count: float32 scalar; images that the phase under way has seen.
      mean, variance: `[384]` float32, mu and sigma^2 of the teacher's channels.
      trained: {"params": {"student", "autoencoder"}} and the optimiser.
      maps: `[2, N, h, w]` float32, local and global maps of the N held-out images.
    """

    count: jax.Array
    mean: jax.Array
    variance: jax.Array
    trained: Trained
    maps: jax.Array


class Calibrated(NamedTuple):
    """State of EfficientAD that predicts.

    Attributes:
      mean, variance, trained: as in `Training`.
      quantiles: `[2, 2]` float32, (q_a, q_b) of the local and of the global maps.
    """

    mean: jax.Array
    variance: jax.Array
    trained: Trained
    quantiles: jax.Array


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

    Map: mean of two squared errors, where 0 and 0.1 are the quantiles `quantile_a` and `quantile_b` of normal images.

    The paper trains with batches of one image. With larger batches p_hard is applied to each image, which is the same at one.

    Args:
      backbone: the teacher T; `scripts/distill.py` makes its weights from any backbone.
      steps: training steps (algorithm 1).
      learning_rate, weight_decay, decay_at: Adam's, with the L2 term in the gradient; the rate drops to a tenth after this
        fraction of the steps.
      hard_quantile: p_hard of section 3.2; the loss is the mean over the elements of the student's error above it.
      dropout: of the decoder, 0.2 in the paper (table 8).
      penalty_images: folder of images that are not of the product, ImageNet in the paper; "" draws textures.
      quantile_a, quantile_b: a and b of the map normalisation (section 3.4); these quantiles become 0 and 0.1.

    Raises:
      UserError: an option out of its range, a backbone that is no PDN; in fitting: no image in `penalty_images`.
    """
    if backbone.name not in SPECS:
        raise UserError(
            f"efficientad's teacher is a PDN: set --config.backbone.name to {' or '.join(SPECS)}, not {backbone.name}"
        )
    check_options("[1, inf)", steps=steps)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)
    check_options("[0, 1]", decay_at=decay_at)
    check_options("(0, 1)", hard_quantile=hard_quantile, quantile_a=quantile_a)
    check_options("[0, 1)", dropout=dropout)
    check_options(f"({quantile_a}, 1)", quantile_b=quantile_b)
    source = image_source(penalty_images)
    pdn, autoencoder = PDN(backbone.name, 2 * CHANNELS), Autoencoder(dropout)
    local_head, global_head = (0, CHANNELS), (CHANNELS, 2 * CHANNELS)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, ("features",))[0]

    def student(params, image, channels=None):
        return pdn.apply({"params": params["student"]}, normalize(image), channels)

    def restore(params, image, **options):
        return autoencoder.apply({"params": params["autoencoder"]}, normalize(image), **options)

    def standardize(state, features):
        mean, std = (ops.per_channel(each, features) for each in (state.mean, jnp.sqrt(state.variance)))
        return (features - mean) / std

    rate = step_decay(learning_rate, 0.1, int(decay_at * steps))
    optimizer = adam_with_l2(rate, weight_decay)

    def init(key, frozen, spec):
        del frozen
        if any(side % 64 or side < 128 for side in spec.image_shape[:2]):
            raise UserError(f"efficientad needs sides that are multiples of 64 and at least 128, got {spec.image_shape[:2]}")
        image = jnp.zeros((1, *spec.image_shape))
        keys = jax.random.split(key)
        networks = {"student": pdn.init(keys[0], image), "autoencoder": autoencoder.init(keys[1], image)}
        variables = {"params": {name: each["params"] for name, each in networks.items()}}
        maps = jnp.zeros((2, spec.num_validation, *spec.features.shape[1:3]))
        return Training(jnp.zeros(()), jnp.zeros(CHANNELS), jnp.zeros(CHANNELS), init_trained(variables, optimizer), maps)

    # two passes: E[x^2] - E[x]^2 would cancel
    def update_mean(key, state, frozen, batch):
        del key, frozen
        count, mean = running_mean(state.count, state.mean, batch.features.mean(axis=(1, 2)), batch.valid)
        return state._replace(count=count, mean=mean), {"images": count}

    def update_variance(key, state, frozen, batch):
        del key, frozen
        squares = ((batch.features - ops.per_channel(state.mean, batch.features)) ** 2).mean(axis=(1, 2))
        count, variance = running_mean(state.count, state.variance, squares, batch.valid)
        return state._replace(count=count, variance=variance), {"images": count}

    def restart(key, state, frozen):
        del key, frozen
        return state._replace(count=jnp.zeros(()))

    def update_networks(key, state, frozen, batch):
        choice_key, factor_key, dropout_key = jax.random.split(key, 3)
        augmented = _jitter(choice_key, factor_key, batch.image)
        taught, taught_augmented = (standardize(state, features) for features in (batch.features, embed(frozen, augmented)))

        def objective(variables):
            params = variables["params"]
            # eq. 1-4: L_hard, and the penalty on images that are not of the product; one pass of the student for both
            both = student(params, jnp.concatenate([batch.image, batch.extra["penalty"]]), local_head)
            output, on_penalty = jnp.split(both, 2)
            l_st = losses.hard_mean((taught - output) ** 2, hard_quantile) + jnp.mean(on_penalty**2, axis=(1, 2, 3))
            # eq. 5-6: the autoencoder restores the teacher's features, the student's other half those of the autoencoder
            restored = restore(params, augmented, train=True, rngs={"dropout": dropout_key})
            l_ae = losses.mse(taught_augmented, restored)
            l_stae = losses.mse(restored, student(params, augmented, global_head))
            parts = {"loss_st": l_st, "loss_ae": l_ae, "loss_stae": l_stae}
            parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
            return sum(parts.values()), ({}, parts)

        trained, info = train_step(state.trained, objective, optimizer)
        return state._replace(trained=trained), info

    def augment(rng, image, draw):
        """An image of another product, resized to twice the size and cropped to its centre; grey with probability 0.3."""
        del draw
        height, width = image.shape[:2]
        penalty = source(rng, (2 * height, 2 * width))[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        if rng.random() < 0.3:
            penalty = grey(penalty)
        return {"penalty": penalty.astype(np.float32)}

    def two_maps(state, batch):
        """`[2, B, h, w]`: the teacher's error and the autoencoder's, each a mean over channels."""
        params = state.trained.variables["params"]
        both = student(params, batch.image)
        local = jnp.mean((standardize(state, batch.features) - both[..., :CHANNELS]) ** 2, axis=-1)
        return jnp.stack([local, jnp.mean((restore(params, batch.image) - both[..., CHANNELS:]) ** 2, axis=-1)])

    def calibrate(key, state, frozen, batch):
        del key, frozen
        maps, valid = all_rows((jnp.moveaxis(two_maps(state, batch), 1, 0), batch.valid))
        slots = state.count.astype(jnp.int32) + jnp.cumsum(valid) - 1
        slots = jnp.where(valid, slots, state.maps.shape[1])
        count = state.count + jnp.sum(valid).astype(state.count.dtype)
        maps = state.maps.at[:, slots].set(jnp.moveaxis(maps, 1, 0), mode="drop")
        return state._replace(count=count, maps=maps), {"images": count}

    def finish(key, state, frozen):
        del key, frozen
        levels = jnp.array([quantile_a, quantile_b])
        quantiles = jnp.quantile(state.maps.reshape(2, -1), levels, axis=1).T
        return Calibrated(state.mean, state.variance, state.trained, quantiles)

    def predict(state, frozen, batch):
        del frozen
        q_a, q_b = state.quantiles[:, :1, None, None], state.quantiles[:, 1:, None, None]
        maps = jnp.mean(0.1 * (two_maps(state, batch) - q_a) / (q_b - q_a), axis=0)
        # convolutions without padding lose a frame of 4 cells, which becomes zero
        maps = ops.anomaly_map(jnp.pad(maps, ((0, 0), (4, 4), (4, 4))), batch.image.shape[1:3])
        return Prediction(maps.max(axis=(1, 2)), maps)

    def phases(spec):
        del spec
        return (
            Phase("teacher mean", update_mean, restart),
            Phase("teacher variance", update_variance, restart),
            Phase("train", update_networks, restart, steps=steps, augment=augment),
            Phase(
                "calibrate",
                calibrate,
                finish,
                finalized=lambda state: Calibrated(*state[1:]),
                split="validation",
                needs_image=True,
            ),
        )

    def warm_start(fresh, old):
        return fresh._replace(trained=copy_variables(fresh.trained, old.trained))

    return Detector(init, phases, predict, embed, warm_start=warm_start)


def _jitter(choice_key: jax.Array, factor_key: jax.Array, image: jax.Array) -> jax.Array:
    """Brightness, contrast or saturation of each image times U(0.8, 1.2)."""
    rows = image.shape[0]
    grey = jnp.sum(image * ops.per_channel(_GREY, image), axis=-1, keepdims=True)
    bases = jnp.stack(
        [
            jnp.zeros_like(image),
            jnp.broadcast_to(grey.mean((1, 2, 3), keepdims=True), image.shape),
            jnp.broadcast_to(grey, image.shape),
        ]
    )
    choice = own_rows(lambda rows: jax.random.randint(choice_key, (rows,), 0, 3), rows)
    base = bases[choice, jnp.arange(rows)]
    factor = own_rows(lambda rows: jax.random.uniform(factor_key, (rows, 1, 1, 1), minval=0.8, maxval=1.2), rows)
    return jnp.clip(factor * image + (1 - factor) * base, 0, 1)
