"""Workers of a sweep as jobs of SLURM, or as processes of this machine, by submitit."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import jax

from iadjax.errors import UserError
from iadjax.experiment.sweep.run import sweep

__all__ = ["WHERE", "check", "submit"]

WHERE = ("slurm", "local")


def check(where: str, workers: int) -> None:
    """A UserError where workers cannot be submitted: submitit is missing, or a value is out of range."""
    if where not in WHERE:
        raise UserError(f"--submit must be one of {', '.join(WHERE)}, got {where!r}")
    if importlib.util.find_spec("submitit") is None:
        raise UserError('--submit needs submitit, which is not installed: python -m pip install "iadjax[slurm]"')
    if where == "slurm" and shutil.which("srun") is None:
        raise UserError("--submit=slurm needs SLURM, and there is no srun here; call on a machine of the cluster")
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")


def submit(directory: Path, where: str, workers: int, stale: float, **options: Any) -> list[Any]:
    """Submits workers of the sweep in a directory; each takes runs until none is free.

    Args:
      directory: holds a `sweep.json`, on a disk that the machines share.
      where: "slurm" or "local".
      workers: how many jobs.
      stale: seconds after which the claim of a silent worker is taken over.
      **options: of submitit's executor, like `timeout_min`, `slurm_partition`.

    Returns:
      submitit's jobs.

    Raises:
      UserError: SLURM's commands are missing, or it refuses the options.
    """
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=directory / "jobs" / "submitit", cluster=where)
        executor.update_parameters(name="iadjax-sweep", **options)
        with executor.batch():
            return [executor.submit(_worker, str(directory), stale) for _ in range(workers)]
    except Exception as error:  # submitit has no common class of errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"the workers could not be submitted ({reason}); correct the flags, or call without --submit"
        ) from error


def _worker(directory: str, stale: float) -> dict[str, str]:
    # the runs have the accelerator
    jax.config.update("jax_platforms", "cpu")
    # a machine that waits costs as much as one that works
    return sweep(Path(directory), stale, wait=False)
