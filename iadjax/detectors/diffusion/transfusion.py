"""TransFusion: "TransFusion - A Transparency-Based Diffusion Model for Anomaly Detection" (Fučka et al., ECCV 2024, arXiv
2311.09999).

A diffusion does not add noise: it makes synthetic anomalies less and less transparent. One network undoes its steps. At each
step it finds the anomaly, the normal image below it, and the mask of the anomaly, which the next step sees.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.adm import check_sides
from iadjax.nn.diffusion import times_like
from iadjax.nn.transparency import TransparencyUNet
from iadjax.synthesis.perlin_texture import rotate
from iadjax.synthesis.source import image_source
from iadjax.synthesis.structure import check_foreground
from iadjax.synthesis.transparent import transparent_anomaly

__all__ = ["clearer", "transfusion"]


def clearer(x: jax.Array, t: jax.Array, betas: jax.Array, anomaly: jax.Array, normal: jax.Array, mask: jax.Array) -> jax.Array:
    """One step back: x_{t-1} = x_t - (d / beta_t) M a + d M n with d = beta_t - beta_{t-1} (section 3.2).

    Args:
      x: x_t, `[B, H, W, C]`.
      t: `[B]` int32, at least 1.
      betas: `[T]`, the opacity of the anomaly at each time.
      anomaly: a = beta_t times its appearance, `[B, H, W, C]`.
      normal: n, `[B, H, W, C]`.
      mask: M, `[B, H, W]`.
    """
    beta = betas[t][:, None, None, None]
    step, m = beta - betas[t - 1][:, None, None, None], mask[..., None]
    return x - step / beta * m * anomaly + step * m * normal


def transfusion(
    *,
    width: int = 64,
    multipliers: Sequence[int] = (1, 2, 2, 2),
    attended: int = 2,
    blocks: int = 2,
    steps: int = 20,
    skipped: int = 1,
    textures: str = "",
    foreground: str = "all",
    anomaly_prob: float = 0.5,
    rotate_prob: float = 0.3,
    max_angle: float = 20.0,
    focal_weight: float = 5.0,
    mask_weight: float = 0.95,
    window: int = 7,
    epochs: int = 1500,
    decay_epochs: int = 800,
    learning_rate: float = 1e-5,
    weight_decay: float = 1e-2,
) -> Detector:
    """Builds TransFusion.

    Map: mean probability of an anomaly over the steps, mixed with the squared difference to the restored image; in [0, 1].

    The constants are those of the authors' code (github.com/MaticFuc/ECCV_TransFusion, MIT), for RGB images. There an anomaly
    is drawn into the first half of each batch, here into each image with a probability. The range of its SSIM follows from the
    values of a batch; here it is 2, that of images in [-1, 1]. Its mask without a pixel may keep those of negative noise.

    Args:
      width, multipliers, attended, blocks: of the network, see `nn.transparency.TransparencyUNet`.
      steps: T; the anomaly's opacity beta_t rises from 0 to 1 in so many times.
      skipped: latest times that prediction leaves out. An image is first seen at time T - 1 - skipped, as its mask is empty.
      textures: folder of images for anomalies, DTD in the paper; "" draws textures.
      foreground: where anomalies are drawn: "all" of the image, or Otsu's "dark" or "bright" part of it. The authors draw them
        within masks of the foreground that they publish.
      anomaly_prob: probability that a training image gets an anomaly.
      rotate_prob, max_angle: probability that a training image is rotated, and by up to how many degrees.
      focal_weight: of the focal loss of the mask.
      mask_weight: of the masks in the map; the rest is that of the difference.
      window: side of the box that smooths both parts of the map.
      epochs, decay_epochs: passes over the images, and after how many the rate drops to a tenth.
      learning_rate, weight_decay: of AdamW.

    Raises:
      UserError: an option out of its range; in fitting: sides of images that the levels cannot halve, no image in `textures`.
    """
    check_options("[1, inf)", blocks=blocks, epochs=epochs, decay_epochs=decay_epochs)
    check_options("[2, inf)", width=width, steps=steps)
    check_options("[0, inf)", focal_weight=focal_weight, max_angle=max_angle, weight_decay=weight_decay)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, 1]", anomaly_prob=anomaly_prob, rotate_prob=rotate_prob, mask_weight=mask_weight)
    check_options(f"[0, {steps - 1})", skipped=skipped)
    check_options(f"[0, {len(multipliers)}]", attended=attended)
    check_odd(window=window)
    if not multipliers or min(multipliers) < 1 or width % 2:
        raise UserError(f"detector.multipliers must be positive and width even, got {tuple(multipliers)} and {width}")
    check_foreground(foreground)
    network, source = TransparencyUNet(width, tuple(multipliers), attended, blocks), image_source(textures)
    betas = np.linspace(0, 1, steps)

    def optimizer(spec):
        rate = step_decay(learning_rate, 0.1, decay_epochs * spec.steps_per_epoch)
        return optax.adamw(rate, weight_decay=weight_decay)

    def augment(rng, image, draw):
        del draw
        appearance, mask, faulty = transparent_anomaly(rng, image, source, foreground)
        drawn = np.float32(rng.random() < anomaly_prob)
        made = {"normal": 2 * image - 1, "mask": drawn * mask, "given": drawn * faulty}
        made["appearance"] = made["mask"][..., None] * (2 * appearance - 1)
        if rng.random() < rotate_prob:
            angle = rng.uniform(-max_angle, max_angle)
            made = {name: rotate(array, angle, Image.Resampling.NEAREST) for name, array in made.items()}
        return made

    def init(key, frozen, spec):
        del frozen
        check_sides(spec.image_shape, multipliers)
        image = jnp.zeros((1, *spec.image_shape))
        variables = network.init(key, image, image[..., 0], jnp.zeros(1, jnp.int32))
        return init_trained(variables, optimizer(spec))

    def update(spec):
        rule = optimizer(spec)

        def step(key, state, frozen, batch):
            del frozen
            normal, mask, appearance = (batch.extra[name] for name in ("normal", "mask", "appearance"))
            opacity = jnp.asarray(betas, normal.dtype)
            t = times_like(key, normal, 1, steps)
            anomaly = opacity[t][:, None, None, None] * appearance
            # eq. 3: inside of the mask the anomaly covers the image with opacity beta_t
            x = normal - (opacity[t][:, None, None] * mask)[..., None] * normal + anomaly
            # the way back begins without a mask
            given = jnp.where((t == steps - 1)[:, None, None], 0, batch.extra["given"])

            def objective(variables):
                found, changed = network.apply(variables, x, given, t, batch.valid, mutable="batch_stats")
                probability = nn.sigmoid(found[2])
                focal = optax.losses.sigmoid_focal_loss(found[2], mask, alpha=0.25, gamma=2.0)
                smooth = optax.losses.huber_loss(probability, mask)
                decided = (probability > 0.5).astype(x.dtype)
                following = clearer(x, t, opacity, found[0], found[1], decided)
                each = {
                    "loss_anomaly": losses.mse(found[0], anomaly),
                    "loss_mask": focal_weight * focal.mean(axis=(1, 2)) + smooth.mean(axis=(1, 2)),
                    "loss_normal": losses.ssim(found[1], normal, data_range=2.0)
                    + jnp.mean(jnp.abs(found[1] - normal), axis=(1, 2, 3)),
                    "loss_step": losses.mse(following, clearer(x, t, opacity, anomaly, normal, mask)),
                }
                parts = {name: losses.mean(value, batch.valid) for name, value in each.items()}
                return sum(parts.values()), (changed, parts)

            return train_step(state, objective, rule)

        return step

    def predict(state, frozen, batch):
        del frozen
        image, opacity = 2 * batch.image - 1, jnp.asarray(betas, batch.image.dtype)

        def step(i, carry):
            x, mask, total = carry
            t = jnp.full(len(x), steps - 1 - skipped - i)
            anomaly, normal, logits = network.apply(state.variables, x, mask, t)
            probability = nn.sigmoid(logits)
            decided = (probability > 0.5).astype(x.dtype)
            return clearer(x, t, opacity, anomaly, normal, decided), decided, total + probability

        empty = jnp.zeros(image.shape[:3], image.dtype)
        restored, _, total = jax.lax.fori_loop(0, steps - 1 - skipped, step, (image, empty, empty))
        # the authors divide by one more than there are steps
        masks = total / (steps - skipped)
        difference = jnp.mean((jnp.clip((restored + 1) / 2, 0, 1) - batch.image) ** 2, axis=-1)
        maps = ops.box_mean(mask_weight * masks + (1 - mask_weight) * difference, window, window // 2)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def phases(spec):
        return (Phase("train", update(spec), epochs=epochs, augment=augment),)

    return Detector(init, phases, predict, warm_start=copy_variables)
