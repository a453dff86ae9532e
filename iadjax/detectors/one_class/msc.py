"""MSC: "Mean-Shifted Contrastive Loss for Anomaly Detection" (Reiss & Hoshen, AAAI 2023, arXiv 2106.03844).

Two views of a normal image attract each other, and views of different ones repel, as seen from the mean of the pretrained
features. So the features stay compact around it. The score is the distance to the nearest normal images.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector
from iadjax.detectors.families.adapted import adapted
from iadjax.detectors.families.options import check_options
from iadjax.parallel.axis import all_rows, num_replicas
from iadjax.synthesis.contrastive import contrastive_view

__all__ = ["mean_shifted_contrastive", "msc"]


def mean_shifted_contrastive(x: jax.Array, centre: jax.Array, valid: jax.Array, temperature: float) -> jax.Array:
    """NT-Xent of directions from the centre (eq. 5), of each image the mean over its two views: `[B]`.

    Every other view of the batch stands in the denominator, the own second one too. Optax's `ntxent` knows no padded rows.

    Args:
      x: `[B, 2, D]`, unit vectors of two views.
      centre: `[D]`.
      valid: `[B]`; other images stand in no denominator.
      temperature: tau.
    """
    z = ops.unit(x - centre[None, None]).swapaxes(0, 1).reshape(-1, x.shape[-1])
    number = len(x)
    similarity = jnp.matmul(z, z.T, precision="highest") / temperature
    others = jnp.tile(valid, 2)[None] & ~jnp.eye(2 * number, dtype=bool)
    # an image alone has its second view, whatever is valid
    others |= jnp.roll(jnp.eye(2 * number, dtype=bool), number, axis=1)
    log_denominator = jax.nn.logsumexp(similarity, axis=1, where=others)
    positive = jnp.sum(z * jnp.roll(z, number, axis=0), axis=-1) / temperature
    return (log_denominator - positive).reshape(2, number).mean(axis=0)


def msc(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    trained: Sequence[str] = ("layer3", "layer4"),
    temperature: float = 0.25,
    angular: bool = False,
    epochs: int = 20,
    learning_rate: float = 1e-5,
    weight_decay: float = 5e-5,
    num_neighbors: int = 2,
) -> Detector:
    """Builds MSC.

    Map: none, the score is of the whole image.

    The authors' code is under a licence for research only, so nothing of it is here
    (github.com/talreiss/Mean-Shifted-Anomaly-Detection). It trains on CIFAR-10 alone.

    Args:
      backbone: the network, ResNet-152 in the paper, which begins with its weights. BatchNorm uses the running statistics.
      layers: levels whose means over positions, one after another, of length 1, are the features.
      trained: beginnings of the names of the modules that are trained.
      temperature: tau of the contrastive loss.
      angular: add the squared distance to the centre, of length 1 then, as the authors' option does.
      epochs: passes over the images.
      learning_rate, weight_decay: of SGD, with the L2 term in the gradient.
      num_neighbors: the score is the sum of the squared distances to so many nearest normal images, all if there are fewer.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: no module with such a name.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", epochs=epochs, num_neighbors=num_neighbors)
    check_options("(0, inf)", temperature=temperature, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay)

    def augment(rng, image, draw):
        del draw
        return {"views": np.stack([contrastive_view(rng, image) for _ in range(2)])}

    def loss(represent, params, state, frozen, batch):
        del params, frozen
        views, centre = batch.extra["views"], ops.unit(state.centre) if angular else state.centre
        x = represent(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)
        # views of all replicas repel each other; each of them has a part of the sum
        x, valid = all_rows((x, batch.valid))
        value = mean_shifted_contrastive(x, centre, valid, temperature)
        if angular:
            value += jnp.sum((x - centre[None, None]) ** 2, axis=(1, 2))
        number = jnp.maximum(jnp.sum(valid), 1).astype(value.dtype)
        return jnp.sum(jnp.where(valid, value, 0)) / number / num_replicas(), {}

    optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))
    return adapted(
        backbone,
        layers,
        trained,
        loss,
        optimizer,
        epochs=epochs,
        num_neighbors=num_neighbors,
        normalized=True,
        augment=augment,
    )
