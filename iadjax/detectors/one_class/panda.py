"""PANDA: "Adapting Pretrained Features for Anomaly Detection and Segmentation" (Reiss et al., CVPR 2021, arXiv 2010.05903).

Normal images are pulled towards the mean of their pretrained features. A few epochs, or elastic weight consolidation, keep the
features from collapsing. The score is the distance to the nearest normal images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors import SafetensorError
from safetensors.numpy import load_file

from iadjax import losses
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.weights import torch_layout
from iadjax.detector import Detector
from iadjax.detectors.families.adapted import adapted, chosen
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.parallel.axis import all_sum

__all__ = ["panda"]


def panda(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    trained: Sequence[str] = ("layer3", "layer4"),
    epochs: int = 15,
    ewc: float = 0.0,
    fisher: str = "",
    learning_rate: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 5e-5,
    clip_norm: float = 1e-3,
    num_neighbors: int = 2,
) -> Detector:
    """Builds PANDA.

    Map: none, the score is of the whole image; the paper segments by SPADE on the adapted features.

    The authors' code is under a licence for research only, so nothing of it is here (github.com/talreiss/PANDA).

    Args:
      backbone: the network, ResNet-152 in the paper, which begins with its weights. BatchNorm uses the running statistics.
      layers: levels whose means over positions, one after another, are the features.
      trained: beginnings of the names of the modules that are trained.
      epochs: passes over the images: a fixed small number is the early stop (section 3.3.1); 50 in the paper with `ewc`.
      ewc: weight of elastic weight consolidation (eq. 4), 1e4 in the paper, 0: none.
      fisher: safetensors file of the diagonal of the Fisher information of the pretraining task, with the names of the
        network's weights; needed where `ewc` is above 0.
      learning_rate, momentum, weight_decay: of SGD, with the L2 term in the gradient.
      clip_norm: largest norm of the gradient.
      num_neighbors: the score is the sum of the squared distances to so many nearest normal images, all if there are fewer.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or `ewc` without `fisher`; in `init`: no
        module with such a name, or a file without the numbers of a module.
    """
    layers, trained = check_layers(backbone, layers), tuple(trained)
    check_options("[1, inf)", epochs=epochs, num_neighbors=num_neighbors)
    check_options("[0, inf)", ewc=ewc, weight_decay=weight_decay)
    check_options("(0, inf)", learning_rate=learning_rate, clip_norm=clip_norm)
    check_options("[0, 1)", momentum=momentum)
    if ewc and not fisher:
        raise UserError("detector.ewc needs the Fisher information of the pretraining: give a file with detector.fisher=FILE")

    def loss(represent, params, state, frozen, batch):
        # eq. 1, divided by the number of features as in the authors' code
        compact = losses.mean(jnp.mean((represent(batch.image) - state.centre[None]) ** 2, axis=-1), batch.valid)
        if not ewc:
            return compact, {}
        # eq. 4: the part of this replica
        first = chosen(backbone, frozen, trained)
        moved = jax.tree.map(lambda f, a, b: jnp.sum(f * (a - b) ** 2), state.constants, params, first)
        elastic = 0.5 * ewc * sum(jax.tree.leaves(moved)) / all_sum(jnp.ones(()))
        return compact + elastic, {"loss_compact": compact, "loss_elastic": elastic}

    sgd = optax.sgd(learning_rate, momentum)
    return adapted(
        backbone,
        layers,
        trained,
        loss,
        optax.chain(optax.clip_by_global_norm(clip_norm), optax.add_decayed_weights(weight_decay), sgd),
        epochs=epochs,
        num_neighbors=num_neighbors,
        constants=(lambda params: read_fisher(backbone, fisher, params)) if ewc else lambda params: (),
    )


def read_fisher(backbone: Backbone, file: str, params: Any) -> Any:
    """The diagonal of the Fisher information as a tree like `params`.

    Args:
      backbone: knows the names of its weights in a file.
      file: safetensors.
      params: modules of the backbone.

    Raises:
      UserError: no such file, a name that it lacks, or a shape that does not fit.
    """
    if not Path(file).expanduser().is_file():
        raise UserError(f"there is no file {file!r}; give an existing one with detector.fisher=FILE")
    try:
        tensors = load_file(Path(file).expanduser())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read as safetensors ({error}); give a .safetensors file") from error

    def read(path, leaf):
        place = ("params", *(entry.key for entry in path))
        name = backbone.weight_name(place)
        if name not in tensors:
            raise UserError(f"{file} has no {name}; it needs the Fisher information of every weight that is trained")
        found = torch_layout(place, np.asarray(tensors[name], np.float32))
        if found.shape != leaf.shape:
            raise UserError(f"{name} of {file} has shape {tensors[name].shape}, which does not fit {leaf.shape}")
        return jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(read, params)
