"""A generator and a discriminator that are trained against each other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from iadjax.detectors.families.gradient import Trained, copy_variables

__all__ = ["Networks", "begin_anew", "copy_networks"]

COLLAPSED = 1e-5
"""A discriminator begins anew when its loss falls below this."""


class Networks(NamedTuple):
    """The state: two networks, trained against each other."""

    generator: Trained
    discriminator: Trained


def begin_anew(discriminator: Trained, loss: jax.Array, key: jax.Array) -> Trained:
    """The discriminator, with DCGAN's first parameters if its loss is below `COLLAPSED`.

    Kernels are from N(0, 0.02^2), scales from N(1, 0.02^2), biases are 0. The optimiser keeps its moments and the running
    statistics stay, as in the code of GANomaly and of its successors.
    """

    def anew(trained):
        flat, split = ravel_pytree(trained.variables["params"])
        # one draw for all: each one takes a third of a second to compile
        drawn = split(0.02 * jax.random.normal(key, flat.shape, flat.dtype))
        first = {"scale": lambda x: 1 + x, "bias": jnp.zeros_like}
        params = jax.tree_util.tree_map_with_path(lambda path, x: first.get(path[-1].key, lambda x: x)(x), drawn)
        return Trained({**trained.variables, "params": params}, trained.optimizer)

    return jax.lax.cond(loss < COLLAPSED, anew, lambda trained: trained, discriminator)


def copy_networks(fresh: Networks, old: Networks) -> Networks:
    """`Detector.warm_start`: the variables as they are, new optimisers."""
    return Networks(*map(copy_variables, fresh, old))
