"""Claims on jobs by files, so that workers on several machines share a directory and none does a job twice.

A claim is a file `JOB.claim.N`, made with O_EXCL: one worker alone can make it. Its owner touches it now and then. A claim that
was not touched for the time `stale` is of a dead worker; who makes `JOB.claim.N+1` takes the job over, again only one can. A
dead process of this machine is recognised at once. A number is never used twice, so a slow look at the folder does no harm.
"""

import contextlib
import json
import os
import platform
import re
import socket
import time
from pathlib import Path
from typing import NamedTuple

from iadjax import files

__all__ = ["Claim", "lost", "release", "take", "touch"]

CLOCK = ".clock"


class Claim(NamedTuple):
    """A claim of this process: the file of the job without its suffix, and the number of the claim."""

    job: Path
    number: int

    @property
    def file(self) -> Path:
        """The file that stands for it."""
        return self.job.with_name(f"{self.job.name}.claim.{self.number}")


def take(job: Path, stale: float) -> Claim | None:
    """Claims a job for this process.

    Args:
      job: the path that belongs to the job; its folder is made.
      stale: seconds after which an untouched claim is of a dead worker.

    Returns:
      The claim, or None while another worker has the job. The job may have been done just before: look after claiming.
    """
    job.parent.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(job)
    if numbers and not _is_dead(Claim(job, numbers[-1]).file, stale):
        return None
    claim = Claim(job, numbers[-1] + 1 if numbers else 0)
    try:
        handle = os.open(claim.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}, file)
    return claim


def touch(claim: Claim) -> None:
    """Says that the owner is alive."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(claim.file)


def lost(claim: Claim) -> bool:
    """Whether another worker took this one for dead."""
    return bool(_numbers(claim.job)[-1:] != [claim.number])


def release(claim: Claim, done: bool) -> None:
    """Ends a claim: others may take the job, or, if it is done, need no claims any more."""
    if not done:
        files.write_json(claim.file, {"released": True})
        return
    for number in _numbers(claim.job):
        with contextlib.suppress(FileNotFoundError):
            Claim(claim.job, number).file.unlink()


def _numbers(job: Path) -> list[int]:
    pattern = re.compile(re.escape(job.name) + r"\.claim\.(\d+)")
    return sorted(int(found[1]) for found in map(pattern.fullmatch, os.listdir(job.parent)) if found)


def _is_dead(file: Path, stale: float) -> bool:
    try:
        age = _now(file.parent) - file.stat().st_mtime
        if age > stale:
            return True
        owner = json.loads(file.read_text())
    except FileNotFoundError:
        # the job was done meanwhile
        return False
    except ValueError:
        # its owner is writing it
        return False
    if owner.get("released"):
        return True
    machine = _machine()
    return machine is not None and owner.get("machine") == machine and not _exists(owner["pid"])


def _now(folder: Path) -> float:
    """The time by the clock of the disk, because clocks of machines differ."""
    clock = folder / f"{CLOCK}.{socket.gethostname()}.{os.getpid()}"
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            clock.unlink(missing_ok=True)


def _machine() -> str | None:
    """What process numbers belong to: a boot of a system and a namespace in it; None where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
