"""Several processes: how they start, wait for each other, and agree on one that writes."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from iadjax.errors import UserError

__all__ = ["agree", "barrier", "fetch", "is_main", "process", "start"]


# seconds after which the others notice that a process has died
_HEARTBEAT = 30


def start(coordinator: str = "", num_processes: int = 0, process_id: int = -1, timeout: int = 300) -> None:
    """Joins this process with the others of its run; call it before anything else of JAX.

    Args:
      coordinator: HOST:PORT of the first process; "" for one process, or where the cluster gives it (SLURM, Open MPI, TPU).
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
    """Whether the flag is set in any process; every process must call this."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def fetch(tree: Any) -> Any:
    """Arrays on the host, whole, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
