"""The functions of a detector, compiled for all devices."""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from iadjax.cpu.draws import draw_together
from iadjax.detector import DataSpec, Detector, Prediction, State
from iadjax.parallel.axis import AXIS, replicated
from iadjax.parallel.placement import Devices, state_shardings, strong

__all__ = ["jit_embed", "jit_init", "jit_predict", "jit_update"]


def jit_init(devices: Devices, detector: Detector, spec: DataSpec) -> Callable:
    """`(key, frozen) -> state`; each array is made on its own devices."""

    def init(key, frozen):
        return strong(detector.init(key, frozen, spec))

    options = None
    if jax.default_backend() == "cpu":
        # it runs once, and most of it is random draws: optimising takes longer than running
        init, options = draw_together(init), {"xla_backend_optimization_level": 0}

    if devices.mesh is None or devices.kind == "pmap":
        # bound to their device, as restored states are: a resumed run takes the functions that were compiled before
        return jax.jit(init, compiler_options=options, out_shardings=SingleDeviceSharding(jax.local_devices()[0]))

    def placed(key, frozen):
        shardings = state_shardings(devices, detector, jax.eval_shape(init, key, frozen))
        return jax.jit(init, compiler_options=options, out_shardings=shardings)(key, frozen)

    return placed


def jit_embed(devices: Devices, embed: Callable) -> Callable:
    """`(frozen, image) -> features`; each row stays on its device."""
    if devices.mesh is None:
        return jax.jit(embed)
    if devices.kind == "pmap":
        return jax.pmap(embed, AXIS, in_axes=(None, 0))
    return jax.jit(embed, out_shardings=NamedSharding(devices.mesh, PartitionSpec(AXIS)))


def jit_update(devices: Devices, detector: Detector, update: Callable, state: State) -> Callable:
    """`Phase.update` for all devices; the state is donated, so that a memory bank is filled in place.

    With "pmap" each replica updates on its own rows, and asks the others by the functions of `parallel.axis`.
    """
    if devices.mesh is None:
        return jax.jit(update, donate_argnums=1)
    if devices.kind == "pmap":

        def replica(key, state, frozen, batch):
            with replicated(devices.count):
                return update(key, state, frozen, batch)

        return jax.pmap(replica, AXIS, in_axes=(None, None, None, 0), out_axes=None)
    everywhere = NamedSharding(devices.mesh, PartitionSpec())
    shardings = state_shardings(devices, detector, state)
    return jax.jit(update, donate_argnums=1, out_shardings=(shardings, everywhere))


def jit_predict(devices: Devices, predict: Callable) -> Callable:
    """`(state, frozen, batch) -> Prediction` for all devices, split by rows; `distributed.fetch` brings them to the host."""
    if devices.mesh is None:
        return jax.jit(predict)
    if devices.kind == "pmap":
        replicas = jax.pmap(predict, AXIS, in_axes=(None, None, 0))

        def joined(state, frozen, batch) -> Prediction:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(replicas(state, frozen, batch)))

        return joined
    return jax.jit(predict, out_shardings=NamedSharding(devices.mesh, PartitionSpec(AXIS)))
