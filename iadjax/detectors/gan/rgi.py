"""RGI and R-RGI: "RGI: Robust GAN-inversion for Mask-free Image Inpainting and Unsupervised Pixel-wise Anomaly Detection" (Mou
et al., ICLR 2023, arXiv 2302.12464).

A GAN learns to draw normal images. For a test image the latent vector is sought whose drawing is nearest to it outside a sparse
mask, and the mask at the same time. R-RGI lets the generator adapt to the image too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.nn.dcgan import Decoder, Discriminator, check_square
from iadjax.nn.diffusion import noise_like
from iadjax.parallel.axis import own_rows

__all__ = ["Inverting", "rgi"]

GREY = (0.2989, 0.587, 0.114)
"""Weights of the mask's channels in the map, as in the authors' code."""

CHUNK = 50
"""So many of the first drawings are in memory at once."""


class Inverting(NamedTuple):
    """The state.

    Attributes:
      generator, critic: trained against each other.
      key: `[2]` uint32, the data of the key that draws the latent vectors among which inversion begins.
    """

    generator: Trained
    critic: Trained
    key: jax.Array


def rgi(
    *,
    width: int = 64,
    latent: int = 512,
    steps: int = 100_000,
    learning_rate: float = 1e-4,
    beta1: float = 0.0,
    beta2: float = 0.9,
    penalty: float = 10.0,
    drift: float = 1e-3,
    starts: int = 1000,
    iterations: int = 2000,
    latent_rate: float = 0.1,
    mask_rate: float = 0.1,
    sparsity: float = 0.4,
    realism: float = 0.1,
    relaxed: bool = False,
    generator_rate: float = 1e-5,
    relaxed_from: int = 500,
    top: float = 0.01,
) -> Detector:
    """Builds RGI.

    Map: absolute value of the mask, in grey.

    The constants of inversion are those of the authors' code (github.com/Shancong-Mou/RGI_Robust_GAN-inversion, without a
    licence). Its GAN grows progressively; here a DCGAN with the loss of WGAN-GP takes its place, so that the constants of
    training are ours. Their code begins at latent vectors from [0, 1), which the GAN was not trained on; here they are normal.
    It scales maps by the least and the largest value of each image; here they are as they are. It has maps only; the score is
    ours.

    Args:
      width, latent: see `nn.dcgan.Decoder`; the latent vector's length.
      steps: of training, of both networks each.
      learning_rate, beta1, beta2: of both Adam optimisers.
      penalty, drift: of the critic: weights of the gradient penalty and of the squared score of normal images.
      starts: latent vectors whose drawings are compared with the image; inversion begins at the nearest one.
      iterations: of inversion, each one step of Adam for the latent vector and the mask.
      latent_rate, mask_rate: their rates.
      sparsity: lambda, weight of the mask's absolute value (eq. 3). For R-RGI the authors choose it by the defect: 0.12 for
        cracks, 0.1 for irregular, 0.06 for large ones, 0.14 for scratches.
      realism: weight of the critic's score of the drawing.
      relaxed: R-RGI (section 3.3): a copy of the generator's parameters is sought for each image too.
      generator_rate, relaxed_from: its rate, and the iteration from which on it is not 0.
      top: the image's score is the mean of this fraction of its pixels, the largest ones.

    Raises:
      UserError: an option out of its range; in fitting: images that are not square with a power of two as side, at least 8.
    """
    check_options("[1, inf)", width=width, latent=latent, steps=steps, starts=starts, iterations=iterations)
    check_options("(0, inf)", learning_rate=learning_rate, latent_rate=latent_rate, mask_rate=mask_rate)
    rest = {"generator_rate": generator_rate, "relaxed_from": relaxed_from}
    check_options("[0, inf)", penalty=penalty, drift=drift, sparsity=sparsity, realism=realism, **rest)
    check_options("[0, 1)", beta1=beta1, beta2=beta2)
    check_options("(0, 1]", top=top)
    critic, optimizer = Discriminator(width, norm=False), optax.adam(learning_rate, b1=beta1, b2=beta2)

    def draw(variables, z, side, valid=None):
        """G(z) and the running statistics."""
        generator = Decoder(width, side)
        if valid is None:
            return generator.apply(variables, z, None), {}
        return generator.apply(variables, z, valid, mutable="batch_stats")

    def init(key, frozen, spec):
        del frozen
        check_square("rgi", spec.image_shape, 8)
        keys = jax.random.split(key, 3)
        variables = (
            Decoder(width, spec.image_shape[0]).init(keys[0], jnp.zeros((1, latent)), None),
            critic.init(keys[1], jnp.zeros((1, *spec.image_shape)), None),
        )
        return Inverting(*(init_trained(each, optimizer) for each in variables), jax.random.key_data(keys[2]))

    def update(key, state, frozen, batch):
        del frozen
        x, valid, keys = 2 * batch.image - 1, batch.valid, jax.random.split(key)
        side = x.shape[1]
        z = noise_like(keys[0], jnp.zeros((len(x), latent)))
        mixing = own_rows(lambda rows: jax.random.uniform(keys[1], (rows,)), len(x))
        judge = lambda variables, x: critic.apply(variables, x, None)[0]  # noqa: E731

        def of_generator(variables):
            drawn, changed = draw(variables, z, side, valid)
            return losses.mean(-judge(state.critic.variables, drawn), valid), (changed, {})

        def of_critic(variables):
            drawn = draw(state.generator.variables, z, side, valid)[0]
            real, fake = (judge(variables, each) for each in (x, drawn))
            slope = losses.gradient_penalty(lambda x: judge(variables, x), x, drawn, mixing)
            parts = {"distance": losses.mean(real - fake, valid), "penalty": losses.mean(slope, valid)}
            return losses.mean(fake - real + penalty * slope + drift * real**2, valid), ({}, parts)

        # both from the state before
        made, info = train_step(state.generator, of_generator, optimizer)
        judging, other = train_step(state.critic, of_critic, optimizer)
        logged = {"loss_critic": other.pop("loss"), **other}
        return Inverting(made, judging, state.key), {**info, **logged}

    def nearest(state, x):
        """Of the kept latent vectors, the one whose drawing is nearest to each image."""
        chunks = -(-starts // CHUNK)
        z = jax.random.normal(jax.random.wrap_key_data(state.key), (chunks, CHUNK, latent))

        def distances(z):
            drawn = draw(state.generator.variables, z, x.shape[1])[0]
            return jax.lax.map(lambda row: jnp.sum((drawn - row[None]) ** 2, axis=(1, 2, 3)), x)

        found = jnp.moveaxis(jax.lax.map(distances, z), 0, 1).reshape(len(x), -1)
        return z.reshape(-1, latent)[jnp.argmin(found[:, :starts], axis=1)]

    def invert(state, x):
        """The masks of images (eq. 3); with `relaxed`, they share one copy of the generator."""
        generator, judging = state.generator.variables, state.critic.variables
        rates = {"z": latent_rate, "mask": mask_rate}
        first = {"z": nearest(state, x), "mask": jnp.zeros_like(x)}
        if relaxed:
            first["generator"] = generator["params"]
            rates["generator"] = lambda i: jnp.where(i < relaxed_from, 0.0, generator_rate)
        adam = {name: optax.adam(rate) for name, rate in rates.items()}

        def objective(sought):
            variables = {**generator, "params": sought["generator"]} if relaxed else generator
            drawn = draw(variables, sought["z"], x.shape[1])[0]
            mask = sought["mask"]
            # |M| with the subgradient 0 at 0, where M begins; that of JAX is 1
            size = jnp.sum(mask * jax.lax.stop_gradient(jnp.sign(mask)))
            # sums over images, which do not see each other
            error = jnp.sum(((1 - mask) * (x - drawn)) ** 2) + sparsity * size
            return error - realism * critic.apply(judging, drawn, None)[0].sum()

        def step(_, carry):
            sought, moments = carry
            gradients, new = jax.grad(objective)(sought), {}
            with jax.numpy_dtype_promotion("standard"):
                for name, rule in adam.items():
                    change, new[name] = rule.update(gradients[name], moments[name])
                    sought = {**sought, name: optax.apply_updates(sought[name], change)}
            return sought, new

        moments = {name: rule.init(first[name]) for name, rule in adam.items()}
        return jax.lax.fori_loop(0, iterations, step, (first, moments))[0]["mask"]

    def predict(state, frozen, batch):
        del frozen
        x = 2 * batch.image - 1
        # every image with its own copy of the generator
        mask = jax.lax.map(lambda row: invert(state, row[None])[0], x) if relaxed else invert(state, x)
        maps = jnp.sum(jnp.abs(mask) * jnp.asarray(GREY, mask.dtype)[None, None, None], axis=-1)
        return Prediction(ops.top_mean(maps.reshape(len(maps), -1), top), maps)

    def warm_start(fresh, old):
        return Inverting(*map(copy_variables, fresh[:2], old[:2]), jnp.array(old.key))

    return Detector(init, lambda spec: (Phase("train", update, steps=steps),), predict, warm_start=warm_start)
