"""DifferNet: "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows" (Rudolph et al., WACV 2021,
arXiv 2008.12577).

A network's features of an image at three scales, averaged over positions, are one vector. A normalising flow gives its
likelihood. The score is the mean over rotations of the image, and gradients of the likelihood localise.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import IMAGENET_STD
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.flow import LevelCoupling, Permutation, chain
from iadjax.nn.layers import linear

__all__ = ["Flow", "differnet"]


class Flow(nn.Module):
    """Glow's couplings of vectors, with a permutation before each (section 3.2).

    Attributes:
      blocks: couplings.
      hidden: numbers in each of the three hidden layers of a coupling's network.
      clamp: of the log scales.
    """

    blocks: int
    hidden: int
    clamp: float

    @nn.compact
    def __call__(self, y: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Vectors `[N, D]` to latent ones, or back, and log |det| `[N]`."""

        def subnet(number, widths):
            sizes = [y.shape[-1] // 2 if number == 1 else y.shape[-1] - y.shape[-1] // 2, *[self.hidden] * 3, *widths]
            names = [f"s{number}_{name}" for name in ("fc1", "fc2", "fc2b", "fc3")]
            layers = [linear(out, fan_in, name) for fan_in, out, name in zip(sizes, sizes[1:], names, strict=False)]

            def network(levels):
                (x,) = levels
                for layer in layers[:-1]:
                    x = nn.relu(layer(x))
                return [layers[-1](x)]

            return network

        # numbers as in the authors' list, where the input is the first
        pairs = [
            (Permutation(name=f"module_list_{2 * k + 1}"), LevelCoupling(subnet, self.clamp, name=f"module_list_{2 * k + 2}"))
            for k in range(self.blocks)
        ]
        (z,), log_det = chain([layer for pair in pairs for layer in pair], [y], inverse=inverse)
        return z, log_det


def differnet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("features.12",),
    scales: int = 3,
    coupling_blocks: int = 8,
    hidden: int = 2048,
    clamp: float = 3.0,
    train_rotations: int = 4,
    rotations: int = 64,
    gradient_map: bool = True,
    sigma: float = 3.0,
    epochs: int = 192,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds DifferNet.

    Map: square of the mean magnitude of the likelihood's gradients at the pixels of rotated images, without a unit.

    The authors score random rotations of a test image, and localise by regular ones. Here both are regular, so that a score is
    always the same.

    Args:
      backbone: frozen network, AlexNet in the paper; its variables are `frozen["backbone"]`.
      layers: its levels, whose means over positions are the features.
      scales: images of the whole, half, quarter ... size (nearest neighbours).
      coupling_blocks, hidden, clamp: of the flow: couplings, width of their networks, alpha of eq. 2.
      train_rotations: random rotations of every training image in a step.
      rotations: regular ones of every test image, over 360 degrees.
      gradient_map: whether to localise, which takes three times as long.
      sigma: of the Gaussian that smooths gradients, in pixels; 0 = off.
      epochs: passes over the images, 24 meta epochs of 8 in the authors' code.
      learning_rate, weight_decay: Adam's (both betas 0.8, epsilon 1e-4), with the L2 term in the gradient.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or images too small for the scales.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", scales=scales, coupling_blocks=coupling_blocks, hidden=hidden, rotations=rotations)
    check_options("[1, inf)", train_rotations=train_rotations, epochs=epochs)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", sigma=sigma, weight_decay=weight_decay)
    flow = Flow(coupling_blocks, hidden, clamp)

    def features(frozen, image):
        """`[B, D]`: means over positions, of every scale and level (section 3.1)."""
        height, width = image.shape[1:3]
        if min(height, width) >> (scales - 1) < 1:
            raise UserError(f"images of {height} x {width} pixels have no {scales} scales; lower detector.scales")
        parts = []
        for scale in range(scales):
            smaller = ops.resize_nearest(image, (height >> scale, width >> scale))
            parts += [jnp.mean(level, axis=(1, 2)) for level in backbone.features(frozen["backbone"], smaller, layers)]
        return jnp.concatenate(parts, axis=-1)

    def nll(variables, frozen, image):
        """Negative log-likelihood per dimension of each image (eq. 4), and its latent vector."""
        z, log_det = flow.apply(variables, features(frozen, image))
        return losses.normal_nll([z], [log_det]) / z.shape[-1], z

    def init_variables(key, frozen, spec):
        shape = jax.eval_shape(features, frozen, jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32))
        return flow.init(key, jnp.zeros(shape.shape))

    def augment(rng, image, draw):
        del image, draw
        return {"degrees": rng.uniform(-180, 180, train_rotations).astype(np.float32)}

    def loss(key, variables, frozen, batch):
        del key
        views = jnp.repeat(batch.image, train_rotations, axis=0)
        each, _ = nll(variables, frozen, ops.rotate(views, batch.extra["degrees"].reshape(-1)))
        return losses.mean(jnp.mean(each.reshape(-1, train_rotations), axis=1), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        image, number = batch.image, len(batch.image)
        scale = jnp.asarray(IMAGENET_STD, jnp.float32)

        def total(views):
            each, z = nll(variables, frozen, views)
            return jnp.sum(each), jnp.mean(z**2, axis=-1)

        def view(sums, degrees):
            degrees = jnp.full((number,), degrees)
            views = ops.rotate(image, degrees)
            if not gradient_map:
                return (sums[0] + total(views)[1],), None
            gradients, score = jax.grad(total, has_aux=True)(views)
            # in units of the normalised image, rotated back, and smoothed before their magnitude is taken
            back = jnp.moveaxis(ops.rotate(gradients * ops.per_channel(scale, gradients), -degrees), -1, 1)
            smooth = ops.gaussian_blur(back, sigma) if sigma else back
            return (sums[0] + score, sums[1] + jnp.mean(jnp.abs(smooth), axis=1)), None

        empty = (jnp.zeros(number), jnp.zeros(image.shape[:3])) if gradient_map else (jnp.zeros(number),)
        # one after the other: the gradients of 64 images at once would take gigabytes
        angles = jnp.asarray(np.linspace(0, 360, rotations, endpoint=False), jnp.float32)
        sums, _ = jax.lax.scan(view, empty, angles)
        # section 3.3: the mean of z^2 over rotations
        score, *maps = (each / rotations for each in sums)
        return Prediction(score, maps[0] ** 2 if maps else None)

    def optimizer(spec):
        del spec
        return adam_with_l2(learning_rate, weight_decay, b1=0.8, b2=0.8, eps=1e-4)

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
