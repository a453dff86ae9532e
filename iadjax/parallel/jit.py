"""The functions of a detector, compiled for all devices."""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec

from iadjax.detector import Detector, Prediction, State
from iadjax.parallel.axis import AXIS
from iadjax.parallel.placement import Devices, state_shardings, strong

__all__ = ["jit_init", "jit_predict", "jit_update"]


def jit_init(devices: Devices, detector: Detector, spec) -> Callable:
    """`(key, frozen) -> state`, each array made where it will live."""

    def init(key, frozen):
        return strong(detector.init(key, frozen, spec))

    if devices.mesh is None or devices.kind == "pmap":
        return jax.jit(init)

    def placed(key, frozen):
        shardings = state_shardings(devices, detector, jax.eval_shape(init, key, frozen))
        return jax.jit(init, out_shardings=shardings)(key, frozen)

    return placed


def jit_update(devices: Devices, detector: Detector, update: Callable, state: State) -> Callable:
    """`Phase.update` as one program for all devices; the state is donated, so that a memory bank is filled in place."""
    if devices.mesh is None:
        return jax.jit(update, donate_argnums=1)
    if devices.kind == "pmap":

        def replica(key, state, frozen, batch):
            # the contract has no word for "sum over replicas", so each one sees the whole batch and takes the same step
            whole = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), batch)
            return update(key, state, frozen, whole)

        return jax.pmap(replica, AXIS, in_axes=(None, None, None, 0), out_axes=None)
    everywhere = NamedSharding(devices.mesh, PartitionSpec())
    shardings = state_shardings(devices, detector, state)
    return jax.jit(update, donate_argnums=1, out_shardings=(shardings, everywhere))


def jit_predict(devices: Devices, predict: Callable) -> Callable:
    """`Detector.predict` for all devices: rows in, rows out, `fetch` brings them to the host."""
    if devices.mesh is None:
        return jax.jit(predict)
    if devices.kind == "pmap":
        replicas = jax.pmap(predict, AXIS, in_axes=(None, None, 0))

        def joined(state, frozen, image) -> Prediction:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(replicas(state, frozen, image)))

        return joined
    return jax.jit(predict, out_shardings=NamedSharding(devices.mesh, PartitionSpec(AXIS)))
