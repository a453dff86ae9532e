"""A pretrained network that adapts to normal images, and the distance of its features to theirs: PANDA, MSC.

Four steps: the mean of the pretrained features, training by a loss that knows this centre, the features of the normal images
once more, and their nearest neighbours as the score.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.rows import Rows, add_rows, init_rows
from iadjax.errors import UserError

__all__ = ["Adapting", "Fitted", "Seen", "adapted", "chosen"]


class Adapting(NamedTuple):
    """The state in training.

    Attributes:
      trained: {"params": the modules that are trained}.
      constants: what else the loss needs.
      count: float32 scalar; images in the centre.
      centre: `[D]`, the mean of the pretrained features.
    """

    trained: Trained
    constants: Any
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


def chosen(backbone: Backbone, frozen: Any, trained: Sequence[str]) -> Any:
    """The pretrained weights of the modules that are trained.

    Args:
      backbone, frozen: the network and the variables by name.
      trained: beginnings of the modules' names.

    Raises:
      UserError: no module has such a name.
    """
    own = frozen["backbone"].get("params", {})
    found = {name: own[name] for name in own if name.startswith(tuple(trained))}
    if not found:
        raise UserError(f"{backbone.name} has no module that begins with {' or '.join(trained)}; set detector.trained")
    return found


def adapted(
    backbone: Backbone,
    layers: Sequence[str],
    trained: Sequence[str],
    loss: Callable,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    num_neighbors: int,
    normalized: bool = False,
    constants: Callable[[Any], Any] = lambda params: (),
    augment: Callable | None = None,
) -> Detector:
    """The detector.

    Args:
      backbone: the network, which begins with its weights. BatchNorm uses the running statistics.
      layers: levels whose means over positions, one after another, are the features.
      trained: beginnings of the names of the modules that are trained.
      loss: `(represent, params, state, frozen, batch) -> (loss, info)`, as `train_step` has it; `represent(image)` gives
        features `[B, D]` by the network with `params`.
      optimizer: of the modules.
      epochs: passes over the images in training.
      num_neighbors: the score is the sum of the squared distances to so many nearest normal images, all if there are fewer.
      normalized: whether features are unit vectors.
      constants: `params -> Adapting.constants`.
      augment: of the phase of training.
    """

    def represent(params, frozen, image):
        network = {**frozen["backbone"], "params": {**frozen["backbone"].get("params", {}), **params}}
        x = ops.level_means(backbone.features(network, image, layers))
        return ops.unit(x) if normalized else x

    def init(key, frozen, spec):
        del key
        params = chosen(backbone, frozen, trained)
        shape = jax.eval_shape(lambda: represent(params, frozen, jnp.zeros((1, *spec.image_shape)))).shape
        # copies: the frozen variables are not the state's to donate
        own = init_trained({"params": jax.tree.map(jnp.array, params)}, optimizer)
        return Adapting(own, constants(params), jnp.zeros(()), jnp.zeros(shape[1:]))

    def average(key, state, frozen, batch):
        del key
        x = represent(state.trained.variables["params"], frozen, batch.image)
        count, centre = running_mean(state.count, state.centre, x, batch.valid)
        return state._replace(count=count, centre=centre), {"images": count}

    def adapt(key, state, frozen, batch):
        del key

        def objective(variables):
            params = variables["params"]
            value, info = loss(lambda image: represent(params, frozen, image), params, state, frozen, batch)
            return value, ({}, info)

        own, info = train_step(state.trained, objective, optimizer)
        return state._replace(trained=own), info

    def see(key, state, frozen, batch):
        del key
        rows = add_rows(state.rows, represent(state.variables["params"], frozen, batch.image), batch.valid)
        return Seen(state.variables, rows), {"images": rows.count}

    def phases(spec):
        def begin(key, state, frozen):
            del key, frozen
            return Seen(state.trained.variables, init_rows(spec.num_images, state.centre.shape))

        def begun(state):
            return Seen(state.trained.variables, Rows(state.count, state.centre))

        def end(key, state, frozen):
            del key, frozen
            return Fitted(state.variables, state.rows.rows[: int(state.rows.count)])

        return (
            Phase("average", average),
            Phase("adapt", adapt, begin, epochs, finalized=begun, augment=augment),
            Phase("fit", see, end, finalized=lambda state: Fitted(state.variables, state.rows.rows)),
        )

    def predict(state, frozen, batch):
        x = represent(state.variables["params"], frozen, batch.image)
        distances, _ = ops.nearest_neighbors(x, state.features, min(num_neighbors, len(state.features)))
        return Prediction(jnp.sum(distances**2, axis=1))

    def warm_start(fresh, old):
        return fresh._replace(trained=copy_variables(fresh.trained, old))

    return Detector(init, phases, predict, warm_start=warm_start)
