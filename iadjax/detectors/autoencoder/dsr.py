"""DSR: "A dual subspace re-projection network for surface anomaly detection" (Zavrtanik et al., ECCV 2022, arXiv 2208.01521).

A codebook of two levels describes images. Codes of normal images are replaced by other ones: that makes anomalies without any
image of one. One decoder shows what the codes say, another what they were before. A network segments where the two differ.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.quantized import DiscreteAutoencoder
from iadjax.nn.restoration import Restoration
from iadjax.nn.unet import FACTORS, InstanceUNet
from iadjax.synthesis.latent_codes import disturbed_levels
from iadjax.synthesis.perlin_texture import blended, perlin_mask, rotate
from iadjax.synthesis.source import image_source

__all__ = ["Networks", "dsr"]


class Networks(NamedTuple):
    """The state: the discrete autoencoder, what is trained on its codes, and the network that refines the mask."""

    discrete: Trained
    restoring: Trained
    refining: Trained


def dsr(
    *,
    codes: int = 4096,
    dimension: int = 128,
    width: int = 128,
    hidden: int = 64,
    layers: int = 2,
    inner: int = 64,
    segment_width: int = 64,
    restrict_levels: int = 3,
    segment_levels: int = 4,
    codebook_images: str = "",
    codebook_steps: int = 200_000,
    codebook_rate: float = 2e-4,
    commitment: float = 0.25,
    decay: float = 0.99,
    revive: float = 0.03,
    min_strength: float = 0.2,
    anomaly_prob: float = 0.5,
    rotate_prob: float = 0.4,
    image_weight: float = 10.0,
    restore_steps: int = 100_000,
    refine_steps: int = 50_000,
    learning_rate: float = 2e-4,
    pool_size: int = 21,
) -> Detector:
    """Builds DSR.

    Map: probability of the class "anomalous", in [0, 1].

    The authors publish a discrete autoencoder that ImageNet has trained, and not its training: the constants of the first phase
    are ours, but for the commitment and the decay. A fit that goes on from another run, `iadjax.fit(config, workdir,
    start=run)`, keeps that run's codebooks and has no first phase. `iadjax.from_torch` puts the authors' into a run's state.

    Args:
      codes, dimension: K, codes of each of the two codebooks, and their numbers.
      width, hidden, layers: channels of the discrete autoencoder and of the object-specific decoder, those inside residual
        blocks, and how many blocks there are.
      inner: channels of the object-specific decoder at its coarsest grid.
      segment_width: channels of the first block of the anomaly detection module and of the upsampling module.
      restrict_levels, segment_levels: grids of the subspace restriction modules, at most 3, and of the other two, at most 4.
      codebook_images: folder of the images that train the discrete autoencoder, ImageNet in the paper; "" draws textures;
        "train": the training images.
      codebook_steps, codebook_rate: of Adam in this phase.
      commitment: weight of the commitment losses.
      decay, revive: of the codebooks' moving means, and the least use of a code (`nn.quantized.VectorQuantizer`).
      min_strength: lambda_s is drawn from [min_strength, 1] for each image and level: the fraction of the codebook, by
        distance, that anomalous codes are drawn from.
      anomaly_prob: probability that an image gets an anomaly.
      rotate_prob: probability that it is first rotated by up to 90 degrees; three quarters of it in the last phase.
      image_weight: lambda, of the restored image's loss.
      restore_steps, learning_rate: of Adam in the second phase. The rate drops to a tenth after 80 % of the steps.
      refine_steps: of the third one, which trains the upsampling module alone. Its anomalies are blots of one colour. The
        schedule of the authors' code ends before its rate drops.
      pool_size: the image score is the maximum of the mask before the upsampling module, averaged over windows of this side.

    Raises:
      UserError: an option out of its range; in fitting: no image in `codebook_images`.
    """
    check_options("[1, inf)", dimension=dimension, hidden=hidden, inner=inner, segment_width=segment_width)
    check_options("[1, inf)", codebook_steps=codebook_steps, restore_steps=restore_steps, refine_steps=refine_steps)
    check_options("[2, inf)", width=width, codes=codes)
    check_options("(0, inf)", learning_rate=learning_rate, codebook_rate=codebook_rate)
    check_options("[0, inf)", layers=layers, commitment=commitment, revive=revive, image_weight=image_weight)
    check_options("[0, 1]", anomaly_prob=anomaly_prob, rotate_prob=rotate_prob, min_strength=min_strength)
    check_options("[0, 1)", decay=decay)
    check_odd(pool_size=pool_size)
    if not (1 <= restrict_levels <= 3 and 1 <= segment_levels <= 4):
        raise UserError(
            "detector.restrict_levels must be 1, 2 or 3 and segment_levels from 1 to 4, got "
            f"{restrict_levels} and {segment_levels}"
        )
    autoencoder = DiscreteAutoencoder(width, layers, hidden, codes, dimension, decay, revive)
    levels = (restrict_levels, segment_levels)
    restoration = Restoration(dimension, width, layers, hidden, inner, segment_width, levels)
    refinement, step = InstanceUNet(segment_width, 2, FACTORS[:segment_levels]), 8 * 2 ** (restrict_levels - 1)
    source = image_source("" if codebook_images == "train" else codebook_images)
    optimizers = (
        optax.adam(codebook_rate),
        optax.adam(step_decay(learning_rate, 0.1, 0.8 * restore_steps)),
        optax.adam(learning_rate),
    )

    def discrete(state, method, *args):
        return autoencoder.apply(state.discrete.variables, *args, method=method)

    def draw_images(rng, image, draw):
        del draw
        return {"original": image if codebook_images == "train" else source(rng, image.shape[:2])}

    def turned(rng, image, probability):
        """The image, maybe rotated, and where its anomaly is."""
        image = rotate(image, rng.uniform(-90, 90)) if rng.random() < probability else image
        return image, perlin_mask(rng, image.shape[:2]) & (rng.random() < anomaly_prob)

    def draw_mask(rng, image, draw):
        del draw
        image, mask = turned(rng, image, rotate_prob)
        return {"original": image, "mask": mask.astype(np.uint8)}

    def draw_blot(rng, image, draw):
        del draw
        image, mask = turned(rng, image, 0.75 * rotate_prob)
        colour = rng.random((1, 1, 3))
        return {"augmented": blended(image, colour, mask, rng.uniform(0, 0.8)), "mask": mask.astype(np.uint8)}

    def init(key, frozen, spec):
        del frozen
        height, side, _ = spec.image_shape
        if height % step or side % step:
            raise UserError(f"dsr needs sides that are multiples of {step}, got {(height, side)}; set data.resize")
        keys, image = jax.random.split(key, 3), jnp.zeros((1, *spec.image_shape))
        low, high = (jnp.zeros((1, height // each, side // each, dimension)) for each in (8, 4))
        first = autoencoder.init(keys[0], image)
        second = restoration.init(keys[1], low, high, jnp.concatenate([high, high], axis=-1), image)
        third = refinement.init(keys[2], jnp.zeros((*image.shape[:3], 8)))
        return Networks(*map(init_trained, (first, second, third), optimizers))

    def learn(key, state, frozen, batch):
        del frozen

        def objective(variables):
            x = batch.extra["original"]
            found, changed = autoencoder.apply(variables, x, batch.valid, key, mutable="codebook")
            each = {"image": losses.mse(found[2], x), "commitment": commitment * (found[3] + found[4])}
            parts = {f"loss_{name}": losses.mean(value, batch.valid) for name, value in each.items()}
            return sum(parts.values()), (changed, parts)

        trained, info = train_step(state.discrete, objective, optimizers[0])
        return state._replace(discrete=trained), info

    def restored(state, variables, low, high):
        """Features of both levels as those of normal images, the object-specific image, and the general one."""
        features = restoration.apply(variables, low, high, method="restrict")
        codes = (discrete(state, f"quantize_{name}", each) for name, each in zip(("low", "high"), features, strict=True))
        image = restoration.apply(variables, discrete(state, "joined", *codes), method="image")
        return features, image, discrete(state, "decode", low, high)

    def segmented(variables, *images):
        return restoration.apply(variables, *jax.lax.stop_gradient(images), method="mask")

    def refined(variables, logits, *images):
        return refinement.apply(variables, jnp.concatenate([*images, jax.nn.softmax(logits)], axis=-1))

    def restore(key, state, frozen, batch):
        del frozen
        x, mask = batch.extra["original"], batch.extra["mask"]
        call, codebook = functools.partial(discrete, state), state.discrete.variables["codebook"]
        disturbed, normal, mask = disturbed_levels(key, call, codebook, x, mask, min_strength)

        def objective(variables):
            features, image, general = restored(state, variables, *disturbed)
            # eq. 4-6
            each = {
                "low": losses.mse(features[0], normal[0]),
                "high": losses.mse(features[1], normal[1]),
                "image": image_weight * losses.mse(image, x),
                "focal": losses.focal(segmented(variables, image, general), mask),
            }
            parts = {f"loss_{name}": losses.mean(value, batch.valid) for name, value in each.items()}
            return sum(parts.values()), ({}, parts)

        trained, info = train_step(state.restoring, objective, optimizers[1])
        return state._replace(restoring=trained), info

    def refine(key, state, frozen, batch):
        del key, frozen
        variables = state.restoring.variables
        codes = discrete(state, "encode", batch.extra["augmented"])
        images = restored(state, variables, *codes)[1:]
        logits = segmented(variables, *images)

        def objective(variables):
            loss = losses.focal(refined(variables, logits, *images), batch.extra["mask"])
            return losses.mean(loss, batch.valid), ({}, {})

        trained, info = train_step(state.refining, objective, optimizers[2])
        return state._replace(refining=trained), info

    def predict(state, frozen, batch):
        del frozen
        variables = state.restoring.variables
        images = restored(state, variables, *discrete(state, "encode", batch.image))[1:]
        logits = segmented(variables, *images)
        coarse = jax.nn.softmax(logits)[..., 1]
        maps = jax.nn.softmax(refined(state.refining.variables, logits, *images))[..., 1]
        return Prediction(ops.box_mean(coarse, pool_size, pool_size // 2).max(axis=(1, 2)), maps)

    def warm_start(fresh, old):
        return Networks(*map(copy_variables, fresh, old))

    phases = (
        Phase("codebook", learn, steps=codebook_steps, augment=draw_images, when="fresh"),
        Phase("restore", restore, steps=restore_steps, augment=draw_mask),
        Phase("refine", refine, steps=refine_steps, augment=draw_blot),
    )
    return Detector(init, lambda spec: phases, predict, warm_start=warm_start)
