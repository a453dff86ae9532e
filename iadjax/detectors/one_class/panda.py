"""PANDA: "Adapting Pretrained Features for Anomaly Detection and Segmentation" (Reiss et al., CVPR 2021, arXiv 2010.05903).

Normal images are pulled towards the mean of their pretrained features. A few epochs, or elastic weight consolidation, keep the
features from collapsing. The score is the distance to the nearest normal images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors import SafetensorError
from safetensors.numpy import load_file

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.weights import torch_layout
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.rows import Rows, add_rows, init_rows
from iadjax.errors import UserError
from iadjax.parallel.axis import all_sum

__all__ = ["Adapting", "Fitted", "Seen", "panda"]


class Adapting(NamedTuple):
    """The state in training.

    Attributes:
      trained: {"params": the modules that are trained}.
      fisher: a tree like the parameters, the diagonal of the Fisher information; () without it.
      count: float32 scalar; images in the centre.
      centre: `[D]`, the mean of the pretrained features.
    """

    trained: Trained
    fisher: Any
    count: jax.Array
    centre: jax.Array


class Seen(NamedTuple):
    """The state while the adapted network sees the normal images; `rows` are their features `[N, D]`."""

    variables: Any
    rows: Rows


class Fitted(NamedTuple):
    """What predicts; `features` are those of the normal images, `[N, D]`."""

    variables: Any
    features: jax.Array


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

    def represent(params, frozen, image):
        network = {**frozen["backbone"], "params": {**frozen["backbone"].get("params", {}), **params}}
        return jnp.concatenate([x.mean(axis=(1, 2)) for x in backbone.features(network, image, layers)], axis=-1)

    def optimizer():
        sgd = optax.sgd(learning_rate, momentum)
        return optax.chain(optax.clip_by_global_norm(clip_norm), optax.add_decayed_weights(weight_decay), sgd)

    def chosen(frozen):
        """The pretrained weights of the modules that are trained."""
        own = frozen["backbone"].get("params", {})
        found = {name: own[name] for name in own if name.startswith(trained)}
        if not found:
            raise UserError(f"{backbone.name} has no module that begins with {' or '.join(trained)}; set detector.trained")
        return found

    def init(key, frozen, spec):
        del key
        params = chosen(frozen)
        shape = jax.eval_shape(lambda: represent(params, frozen, jnp.zeros((1, *spec.image_shape)))).shape
        # copies: the frozen variables are not the state's to donate
        own = init_trained({"params": jax.tree.map(jnp.array, params)}, optimizer())
        return Adapting(own, read_fisher(backbone, fisher, params) if ewc else (), jnp.zeros(()), jnp.zeros(shape[1:]))

    def average(key, state, frozen, batch):
        del key
        x = represent(state.trained.variables["params"], frozen, batch.image)
        count, centre = running_mean(state.count, state.centre, x, batch.valid)
        return Adapting(state.trained, state.fisher, count, centre), {"images": count}

    def adapt(key, state, frozen, batch):
        del key
        first = chosen(frozen)

        def objective(variables):
            x = represent(variables["params"], frozen, batch.image)
            # eq. 1, divided by the number of features as in the authors' code
            compact = losses.mean(jnp.mean((x - state.centre[None]) ** 2, axis=-1), batch.valid)
            if not ewc:
                return compact, ({}, {})
            # eq. 4: the part of this replica
            moved = jax.tree.map(lambda f, a, b: jnp.sum(f * (a - b) ** 2), state.fisher, variables["params"], first)
            elastic = 0.5 * ewc * sum(jax.tree.leaves(moved)) / all_sum(jnp.ones(()))
            return compact + elastic, ({}, {"loss_compact": compact, "loss_elastic": elastic})

        own, info = train_step(state.trained, objective, optimizer())
        return Adapting(own, state.fisher, state.count, state.centre), info

    def see(key, state, frozen, batch):
        del key
        rows = add_rows(state.rows, represent(state.variables["params"], frozen, batch.image), batch.valid)
        return Seen(state.variables, rows), {"images": rows.count}

    def phases(spec):
        def begin(key, state, frozen):
            del key, frozen
            return Seen(state.trained.variables, init_rows(spec.num_images, state.centre.shape))

        def end(key, state, frozen):
            del key, frozen
            return Fitted(state.variables, state.rows.rows[: int(state.rows.count)])

        return (
            Phase("average", average),
            Phase(
                "adapt",
                adapt,
                begin,
                epochs,
                finalized=lambda state: Seen(state.trained.variables, Rows(state.count, state.centre)),
            ),
            Phase("fit", see, end, finalized=lambda state: Fitted(state.variables, state.rows.rows)),
        )

    def predict(state, frozen, batch):
        x = represent(state.variables["params"], frozen, batch.image)
        distances, _ = ops.nearest_neighbors(x, state.features, min(num_neighbors, len(state.features)))
        return Prediction(jnp.sum(distances**2, axis=1))

    def warm_start(fresh, old):
        return fresh._replace(trained=copy_variables(fresh.trained, old))

    return Detector(init, phases, predict, warm_start=warm_start)


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
