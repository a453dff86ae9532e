"""One run in a process of its own: its peak memory is its own, and a crash ends it alone."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment.fit import Stopped
from iadjax.experiment.sweep import claims
from iadjax.experiment.sweep.claims import Claim
from iadjax.experiment.sweep.worker import Outcome

__all__ = ["FAILED", "PARENT", "call", "end_with_parent"]

PARENT = "IADJAX_SWEEP_PARENT"
FAILED = 2
"""Status of a process that wrote its sentence."""

_BEAT = 5.0


def call(arguments: Sequence[str], log: Path, why: Path, claim: Claim, stale: float) -> Outcome:
    """Runs `python -m arguments`, and touches the claim until it ends.

    Args:
      arguments: a module and its words.
      log: where its lines go.
      why: where it writes `{"sentence": ...}` if it fails with a reason.
      claim: of the task.
      stale: seconds after which a claim is dead.

    Raises:
      Stopped: a signal came; the process has written a checkpoint.
      UserError: another worker has taken this one for dead.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    why.unlink(missing_ok=True)
    with open(log, "ab") as out:
        child = subprocess.Popen(  # noqa: S603  (this package's own modules)
            [sys.executable, "-m", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_environment()
        )
    with _passing_on(child) as stopped:
        try:
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(min(_BEAT, stale / 5))
                claims.touch(claim)
                if claims.lost(claim):
                    raise UserError(
                        f"another worker took this one for dead, because its claim {claim.file.name} was untouched for "
                        f"{stale:.0f} s; give all workers a larger --stale_seconds"
                    )
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if stopped.is_set() or child.returncode == 130:
        raise Stopped("stopped; call again with the same --workdir to go on")
    if child.returncode == 0:
        return Outcome()
    if child.returncode == FAILED and why.is_file():
        return Outcome(files.read_json(why, "look at its log")["sentence"])
    ended = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
    memory = " (too little memory?)" if child.returncode == -signal.SIGKILL else ""
    return Outcome(f"its process ended with {ended}{memory}; {log} has its last lines")


def _environment() -> dict[str, str]:
    """That of this process, with its cache of compiled functions."""
    cache = jax.config.jax_compilation_cache_dir
    places = {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}
    seconds = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs)}
    return {**os.environ, **places, **seconds, PARENT: str(os.getpid())}


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen) -> Iterator[threading.Event]:
    """Sends SIGTERM and Ctrl-C on to the child, and gives an event that says so; the child ends by itself."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def handle(number, frame):
        del frame
        if stopped.is_set():
            child.kill()
        stopped.set()
        # a terminal sends Ctrl-C to the child as well, and a second one ends it at once
        if number != signal.SIGINT or not sys.stdin.isatty():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Ends this process within a second after its worker, which may have been killed: another worker takes the run over."""
    parent = int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
