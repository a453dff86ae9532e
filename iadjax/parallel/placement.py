"""Where arrays live: one axis, `data`, over all devices of all processes.

Batches are split over it, parameters are on every device, and memory banks are split by rows. `jax.jit` over such arrays does
the rest. With one device there is no mesh.
"""

import contextlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from iadjax.detector import Detector, State
from iadjax.errors import UserError, did_you_mean
from iadjax.parallel.axis import AXIS

__all__ = ["KINDS", "Devices", "all_devices", "place", "put_rows", "replicate", "state_shardings", "strong", "use"]


KINDS = ("jit", "pmap")


class Devices(NamedTuple):
    """The devices of a run and the way to use them.

    Attributes:
      mesh: one axis over all devices; those of one process are neighbours. None with one device.
      kind: "jit", or "pmap" for replicas.
    """

    mesh: Mesh | None
    kind: str = "jit"

    @property
    def count(self) -> int:
        """How many there are; batches are padded to a multiple of it."""
        return 1 if self.mesh is None else self.mesh.size


def all_devices(kind: str = "jit") -> Devices:
    """All devices of all processes.

    Raises:
      UserError: an unknown kind, or "pmap" with several processes.
    """
    if kind not in KINDS:
        raise UserError(f"there is no way to run in parallel called {kind!r}; {did_you_mean(kind, KINDS)}")
    if kind == "pmap" and jax.process_count() > 1:
        raise UserError("parallel=pmap is for the devices of one process; leave it at jit for several processes")
    if jax.device_count() == 1:
        return Devices(None, kind)
    # a process reads consecutive rows of a batch, so its devices must be neighbours
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Devices(Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)), kind)


def use(devices: Devices) -> contextlib.AbstractContextManager:
    """A context in which `num_shards` is the number of devices; with "pmap", or one device, an empty one."""
    return contextlib.nullcontext() if devices.mesh is None or devices.kind == "pmap" else jax.set_mesh(devices.mesh)


def replicate(devices: Devices, tree: Any) -> Any:
    """A copy of every array on every device; an array that the tree holds twice is copied once.

    Every process must hold the same values.
    """
    if devices.mesh is None or devices.kind == "pmap":
        return tree
    everywhere = NamedSharding(devices.mesh, PartitionSpec())

    def put(leaf):
        if jax.process_count() == 1:
            return jax.device_put(leaf, everywhere)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, everywhere, lambda index: value[index])

    placed = {key: put(leaf) for key, leaf in {id(leaf): leaf for leaf in jax.tree.leaves(tree)}.items()}
    return jax.tree.map(lambda leaf: placed[id(leaf)], tree)


def put_rows(devices: Devices, tree: Any) -> Any:
    """Host arrays `[rows of this process, ...]` as global arrays `[all rows, ...]`, split over the devices."""
    if devices.mesh is None:
        return tree
    if devices.kind == "pmap":
        return jax.tree.map(lambda x: x.reshape(devices.count, -1, *x.shape[1:]), tree)
    split = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), tree)


def state_shardings(devices: Devices, detector: Detector, state: State) -> Any:
    """Where each array of a state lives, as `Detector.partition` says; on every device where its rows do not divide.

    Args:
      devices: the devices.
      detector: whose state it is.
      state: arrays, or their shapes.

    Returns:
      A tree of shardings.
    """
    if devices.mesh is None or devices.kind == "pmap":
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda _: here, state)

    def one(spec, leaf):
        divides = all(axis is None or size % devices.count == 0 for axis, size in zip(spec, leaf.shape, strict=False))
        return NamedSharding(devices.mesh, spec if divides and len(spec) <= leaf.ndim else PartitionSpec())

    def some(spec, part):
        return jax.tree.map(lambda leaf: one(spec, leaf), part)

    return jax.tree.map(some, detector.partition(state), state, is_leaf=lambda node: isinstance(node, PartitionSpec))


def place(devices: Devices, detector: Detector, state: State) -> State:
    """The state with every array where `state_shardings` has it."""
    if devices.mesh is None or devices.kind == "pmap":
        # replicas are equal: work between the steps runs on one of them
        return jax.device_put(state, jax.local_devices()[0])
    shardings = state_shardings(devices, detector, state)
    return jax.jit(lambda x: x, out_shardings=shardings)(state) if jax.process_count() > 1 else jax.device_put(state, shardings)


def strong(state: State) -> State:
    """The state without weak types; with them the first updates would change types and be compiled again."""

    def one(leaf):
        plain = hasattr(leaf, "dtype") and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if plain else leaf

    return jax.tree.map(one, state)
