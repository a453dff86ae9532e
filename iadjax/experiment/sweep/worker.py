"""A worker: takes jobs of a directory one by one until all are finished or have failed, and says how far the work is."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment.sweep import claims
from iadjax.experiment.sweep.claims import Claim

__all__ = ["STALE", "Outcome", "Task", "failures", "finished", "work"]

STALE = 300.0
"""Seconds after which the claim of a silent worker is taken over."""

_POLL = 2.0


@dataclasses.dataclass(frozen=True)
class Task:
    """Something that one worker does: `mark` is its place below `DIR/jobs`, `name` what lines call it."""

    mark: Path
    name: str

    @property
    def done(self) -> Path:
        """Says that it is finished."""
        return self.mark.with_name(f"{self.mark.name}.finished.json")

    @property
    def failed(self) -> Path:
        """Says why it failed."""
        return self.mark.with_name(f"{self.mark.name}.failed.json")


class Outcome(NamedTuple):
    """What came of a task: `failure` is None, or one sentence."""

    failure: str | None = None


def finished(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that are finished."""
    return [task for task in tasks if task.done.is_file()]


def failures(tasks: Sequence[Task]) -> dict[Task, str]:
    """The sentence of every task that failed last time."""
    found = {task: _failure(task) for task in tasks if not task.done.is_file()}
    return {task: why["sentence"] for task, why in found.items() if why}


def work(
    tasks: Sequence[Task],
    execute: Callable[[Task, Claim], Outcome],
    say: Callable[[str], None],
    *,
    stale: float = STALE,
    wait: bool = True,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Does the tasks that are not finished; with other workers, if there are any.

    A task that failed before this call is tried again, one that fails in it is not.

    Args:
      tasks: all of them, the same for every worker.
      execute: does one; it touches the claim while it works.
      say: takes lines of progress.
      stale: seconds after which the claim of a silent worker is taken over.
      wait: whether to stay while other workers have the last tasks, to take over those of dead ones.
      after: called after every task.
    """
    began, spent, waiting = {task: _failure(task) for task in tasks}, [], False
    while True:
        # a failure that was not there when this call began is of now
        left = [task for task in tasks if not task.done.is_file() and _failure(task) in (None, began[task])]
        taken = next(((task, claim) for task in left if (claim := claims.take(task.mark, stale))), None)
        if taken is None:
            if not left or not wait:
                break
            if not waiting:
                say(f"sweep: other workers have the last {len(left)} tasks; waiting for them")
            waiting = True
            time.sleep(min(_POLL, stale / 4))
            continue
        waiting = False
        task, claim = taken
        done = task.done.is_file()
        try:
            if done or _failure(task) not in (None, began[task]):
                continue
            say(f"sweep: {task.name} begins")
            started = time.monotonic()
            outcome = execute(task, claim)
            seconds = time.monotonic() - started
            done = outcome.failure is None
            _note(task, outcome, seconds)
            # so that this call does not try it again
            began[task] = None
            spent.append(seconds)
            say(_line(tasks, task, outcome, seconds, sum(spent) / len(spent)))
        finally:
            claims.release(claim, done)
        after()


def _note(task: Task, outcome: Outcome, seconds: float) -> None:
    if outcome.failure is None:
        files.write_json(task.done, {"seconds": round(seconds, 3)})
        task.failed.unlink(missing_ok=True)
    else:
        files.write_json(task.failed, {"sentence": outcome.failure, "time": time.time(), "seconds": round(seconds, 3)})


def _failure(task: Task) -> dict[str, Any] | None:
    try:
        return files.read_json(task.failed, "remove it") if task.failed.is_file() else None
    except UserError:
        # another worker removed it between the two looks
        return None


def _line(tasks: Sequence[Task], task: Task, outcome: Outcome, seconds: float, mean: float) -> str:
    done, failed = len(finished(tasks)), len(failures(tasks))
    busy = sum(1 for each in tasks if any(each.mark.parent.glob(f"{each.mark.name}.claim.*")) and not each.done.is_file())
    what = f"took {seconds:.0f} s" if outcome.failure is None else f"failed: {outcome.failure}"
    left = len(tasks) - done - failed
    rest = f"; about {_duration(left * mean / max(1, busy))} left" if left else ""
    return f"sweep: {task.name} {what}; {done} of {len(tasks)} finished{f', {failed} failed' if failed else ''}{rest}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
