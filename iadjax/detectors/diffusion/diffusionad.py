"""DiffusionAD: "DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection" (Zhang et al., TPAMI 2025, arXiv
2303.08730).

Synthetic anomalies are drawn into normal images. A diffusion model restores the normal image in one step from little noise,
guided by what it restores from much noise. A second network compares the restored and the given image, and segments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.nn.adm import AdmUNet, check_sides
from iadjax.nn.diffusion import guided_noise, noise_like, noise_schedule, noised, start_from_noise, times_like
from iadjax.nn.unet import DiscriminativeDecoder, Encoder, discriminative_widths
from iadjax.synthesis.source import image_source
from iadjax.synthesis.structure import check_foreground, structure_anomaly

__all__ = ["DiffusionAD", "Segmentation", "diffusionad"]


class DiffusionAD(NamedTuple):
    """The state.

    Attributes:
      trained: both networks, "denoiser" and "segmentation".
      key: `[2]` uint32, the data of the key that draws the noise of prediction, the same for all images.
    """

    trained: Trained
    key: jax.Array


class Segmentation(nn.Module):
    """DRAEM's discriminative sub-network with one output, with the names of the authors' code.

    Attributes:
      width: channels of its first block.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[B, H, W, 6]` to logits `[B, H, W]`."""
        levels = Encoder(discriminative_widths(self.width), name="encoder_segment")(x, valid)
        return DiscriminativeDecoder(self.width, 1, name="decoder_segment")(levels, valid)[..., 0]


def diffusionad(
    *,
    width: int = 128,
    multipliers: Sequence[float] = (),
    blocks: int = 2,
    attention: Sequence[int] = (32, 16, 8),
    heads: int = 4,
    segment_width: int = 64,
    times: int = 1000,
    middle: int = 300,
    guidance: float = 1.0,
    less_noise: int = 200,
    more_noise: int = 400,
    centred: bool = False,
    textures: str = "",
    foreground: str = "all",
    anomaly_prob: float = 0.5,
    min_beta: float = 0.2,
    max_beta: float = 0.8,
    focal_weight: float = 5.0,
    epochs: int = 3000,
    denoiser_rate: float = 1e-4,
    segment_rate: float = 1e-5,
    half_period: int = 10,
    top: int = 50,
) -> Detector:
    """Builds DiffusionAD.

    Map: probability of an anomaly, in [0, 1].

    The authors (github.com/HuiZhang0812/DiffusionAD) draw anomalies within masks of the foreground that they publish.

    Args:
      width, multipliers, blocks, attention, heads: of the denoising network, see `nn.adm.AdmUNet`; multipliers (): those for
        the side of the images.
      segment_width: channels of the segmentation network's first block.
      times: T of the linear noise schedule.
      middle: S; training draws the time of little noise below it, that of much noise from it on.
      guidance: w of eq. 8; 0: the image is restored from little noise alone.
      less_noise, more_noise: both times of prediction.
      centred: whether the networks see images in [-1, 1]; in the authors' code they lie in [0, 1].
      textures: folder of images for anomalies, DTD in the paper; "" draws textures. Half of the anomalies are pieces of the
        image itself that have changed places.
      foreground: where anomalies are drawn: "all" of the image, or Otsu's "dark" or "bright" part of it.
      anomaly_prob: fraction of the training images that get an anomaly.
      min_beta, max_beta: opacity of the image within an anomaly.
      focal_weight: of the focal loss of the segmentation.
      epochs: passes over the images.
      denoiser_rate, segment_rate: of Adam for both networks.
      half_period: steps in which the rate of the segmentation network falls to zero as a cosine; it rises again in as many.
      top: the image's score is the mean of so many largest pixels.

    Raises:
      UserError: an option out of its range; in fitting: sides of images that the levels cannot halve, or that are no multiples
        of 32; no image in `textures`.
    """
    sizes = {"width": width, "blocks": blocks, "heads": heads, "segment_width": segment_width, "epochs": epochs, "top": top}
    check_options("[1, inf)", times=times, half_period=half_period, **sizes)
    rates = {"denoiser_rate": denoiser_rate, "segment_rate": segment_rate}
    check_options("[0, inf)", guidance=guidance, focal_weight=focal_weight, **rates)
    check_options("[0, 1]", anomaly_prob=anomaly_prob, min_beta=min_beta, max_beta=max_beta)
    check_options(f"[1, {times})", middle=middle)
    check_options(f"[0, {times})", less_noise=less_noise, more_noise=more_noise)
    check_foreground(foreground)
    denoiser = AdmUNet(width, tuple(multipliers), blocks, tuple(attention), heads)
    segmentation, schedule, source = Segmentation(segment_width), noise_schedule(times), image_source(textures)

    def optimizer():
        def rate(count):
            return segment_rate * (1 + jnp.cos(jnp.pi * count / half_period)) / 2

        parts = {"denoiser": optax.adam(denoiser_rate), "segmentation": optax.adam(rate)}
        # each name labels its whole subtree
        return optax.multi_transform(parts, {name: name for name in parts})

    def init(key, frozen, spec):
        del frozen
        check_sides(spec.image_shape, multipliers)
        keys, image = jax.random.split(key, 3), jnp.zeros((1, *spec.image_shape))
        first = denoiser.init(keys[0], image, jnp.zeros(1, jnp.int32))
        second = segmentation.init(keys[1], jnp.concatenate([image, image], axis=-1), None)
        params = {"denoiser": first["params"], "segmentation": second["params"]}
        variables = {"params": params, "batch_stats": second["batch_stats"]}
        return DiffusionAD(init_trained(variables, optimizer()), jax.random.key_data(keys[2]))

    def guided(params, x, times, noises):
        """Section 3.3: the restored image, and both predictions of the noise. Times and noises: of less and of more."""
        t, more_t = times
        x_t, noisier = (noised(schedule, x, *pair) for pair in zip(times, noises, strict=True))
        # one pass for both
        found = denoiser.apply({"params": params}, jnp.concatenate([x_t, noisier]), jnp.concatenate(times))
        little, much = jnp.split(found, 2)
        guide = jnp.clip(start_from_noise(schedule, noisier, more_t, much), -1, 1)
        # eq. 7: noised again by what was found at little noise
        guide = noised(schedule, guide, t, little)
        # eq. 8
        hat = guided_noise(schedule, x_t, t, little, guide, guidance)
        return jnp.clip(start_from_noise(schedule, x_t, t, hat), -1, 1), (little, much)

    def segment(variables, x, restored, valid=None, **options):
        own = {"params": variables["params"]["segmentation"], "batch_stats": variables["batch_stats"]}
        return segmentation.apply(own, jnp.concatenate([x, restored], axis=-1), valid, **options)

    def augment(rng, image, draw):
        del draw
        if rng.random() >= anomaly_prob:
            return {"augmented": image, "mask": np.zeros(image.shape[:2], np.uint8)}
        opacity = (1 - max_beta, 1 - min_beta)
        augmented, mask = structure_anomaly(rng, image, source, foreground=foreground, opacity=opacity)
        return {"augmented": augmented, "mask": mask}

    def scaled(image):
        return 2 * image - 1 if centred else image

    def update(key, state, frozen, batch):
        del frozen
        keys, x, mask = jax.random.split(key, 4), scaled(batch.extra["augmented"]), batch.extra["mask"]
        times_of = times_like(keys[0], x, 0, middle), times_like(keys[1], x, middle, times)
        noises = noise_like(keys[2], x), noise_like(keys[3], x)
        normal = batch.valid & ~jnp.any(mask > 0, axis=(1, 2))

        def objective(variables):
            restored, found = guided(variables["params"]["denoiser"], x, times_of, noises)
            logits, changed = segment(variables, x, restored, batch.valid, mutable="batch_stats")
            target = (mask > 0).astype(logits.dtype)
            focal = optax.losses.sigmoid_focal_loss(logits, target, alpha=0.5, gamma=4.0)
            smooth = optax.losses.huber_loss(nn.sigmoid(logits), target)
            parts = {
                # eq. 9: of normal images alone
                "loss_noise": losses.mean(sum(losses.mse(*pair) for pair in zip(found, noises, strict=True)), normal),
                "loss_focal": losses.mean(focal.mean(axis=(1, 2)), batch.valid),
                "loss_smooth_l1": losses.mean(smooth.mean(axis=(1, 2)), batch.valid),
            }
            weights = (1.0, focal_weight, 1.0)
            return sum(w * part for w, part in zip(weights, parts.values(), strict=True)), (changed, parts)

        trained, info = train_step(state.trained, objective, optimizer())
        return DiffusionAD(trained, state.key), info

    def predict(state, frozen, batch):
        del frozen
        x, variables = scaled(batch.image), state.trained.variables
        keys = jax.random.split(jax.random.wrap_key_data(state.key))
        # the same noise for all images
        noises = tuple(jax.random.normal(each, (1, *x.shape[1:])) for each in keys)
        times_of = tuple(jnp.full(len(x), t) for t in (less_noise, more_noise))
        restored, _ = guided(variables["params"]["denoiser"], x, times_of, noises)
        maps = nn.sigmoid(segment(variables, x, restored))
        return Prediction(ops.mean_of_largest(maps.reshape(len(maps), -1), top), maps)

    def warm_start(fresh, old):
        return DiffusionAD(copy_variables(fresh.trained, old.trained), jnp.array(old.key))

    return Detector(
        init, lambda spec: (Phase("train", update, epochs=epochs, augment=augment),), predict, warm_start=warm_start
    )
