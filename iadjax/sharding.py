"""How devices share the work: one axis, `data`, over all devices of all processes.

Batches are split over it, parameters are on every device, and memory banks are split by rows. `jax.jit` over arrays that are
placed so does the rest; code that has to know its own part (`ops.nearest_neighbors`, `ops.k_center_greedy`) asks
`num_shards` and uses `jax.shard_map`. With one device there is no mesh and nothing changes.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from iadjax.detector import Batch, Detector, Prediction, State
from iadjax.errors import UserError, did_you_mean

__all__ = [
    "AXIS", "Devices", "KINDS", "agree", "all_devices", "barrier", "fetch", "is_main", "jit_init", "jit_predict", "jit_update",
    "num_shards", "place",
    "process", "put_batch", "put_rows", "replicate", "start",
    "state_shardings", "strong", "use",
]  # fmt: skip

AXIS = "data"
KINDS = ("jit", "pmap")


# seconds after which the others hear of a process that died without a word
_HEARTBEAT = 30


def start(coordinator: str = "", num_processes: int = 0, process_id: int = -1, timeout: int = 300) -> None:
    """Joins this process with the others of its run; call it before anything else of JAX.

    Args:
      coordinator: HOST:PORT of the first process; "" where the cluster tells (SLURM, Open MPI, TPU) or there is one process.
      num_processes, process_id: with `coordinator`.
      timeout: seconds to wait for the others.

    Raises:
      UserError: the three do not fit together, or the others do not come.
    """
    if not coordinator and (num_processes or process_id >= 0):
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, the address of process 0")
    if coordinator and not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} needs --num_processes=N and --process_id from 0 to N - 1, got {num_processes} and "
            f"{process_id}"
        )
    where = (coordinator, num_processes, process_id) if coordinator else ()
    if not where and not _in_cluster():
        return
    try:
        jax.distributed.initialize(*where, initialization_timeout=timeout, heartbeat_timeout_seconds=_HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes did not find each other within {timeout} s ({str(error).splitlines()[0]}); start all of them, with "
            "the same coordinator and a process_id of their own"
        ) from error


def _in_cluster() -> bool:
    """Whether this is one of several processes that a scheduler started, or runs on a TPU host."""
    several = any(int(os.environ.get(name) or 1) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    chips = list(Path("/dev").glob("accel*")) + list(Path("/dev/vfio").glob("[0-9]*"))
    return several or bool(chips and importlib.util.find_spec("libtpu"))


class Devices(NamedTuple):
    """The devices of a run and the way to use them.

    Attributes:
      mesh: one axis over all devices, those of a process side by side; None with one device.
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
    # rows of a batch are read by the process that owns them, so its devices must stand together
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Devices(Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)), kind)


def use(devices: Devices) -> contextlib.AbstractContextManager:
    """A context in which `num_shards` is the number of devices; with "pmap", or one device, an empty one."""
    return contextlib.nullcontext() if devices.mesh is None or devices.kind == "pmap" else jax.set_mesh(devices.mesh)


def num_shards() -> int:
    """Size of the `data` axis where code is being traced; 1 without a mesh and inside `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    free = AXIS in mesh.axis_names and AXIS not in mesh.manual_axes
    return mesh.shape[AXIS] if free else 1


def process() -> tuple[int, int]:
    """(index, count) of this process."""
    return jax.process_index(), jax.process_count()


def is_main() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(flag: bool) -> bool:
    """Whether the flag is set in any process; all of them have to ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def fetch(tree: Any) -> Any:
    """Arrays on the host, whole, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def replicate(devices: Devices, tree: Any) -> Any:
    """A copy of every array on every device, one where it stands in the tree twice; each process must hold the same values."""
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


def put_batch(devices: Devices, batch: Batch) -> Batch:
    """This process's rows of a batch, see `put_rows`."""
    return put_rows(devices, batch)


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
    if devices.mesh is None:
        return state
    if devices.kind == "pmap":
        # replicas are alike: what is done between the steps is done on one
        return jax.device_put(state, jax.local_devices()[0])
    shardings = state_shardings(devices, detector, state)
    return jax.jit(lambda x: x, out_shardings=shardings)(state) if jax.process_count() > 1 else jax.device_put(state, shardings)


def strong(state: State) -> State:
    """The state without weak types, which would make the first updates change the type and be compiled again."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype) if hasattr(x, "dtype") else x, state)


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
