"""A worker of a sweep: first the trials of the search, if there is one, then the runs, then the tables."""

import functools
from collections.abc import Callable
from pathlib import Path

from iadjax import progress
from iadjax.errors import UserError
from iadjax.experiment import tables
from iadjax.experiment.sweep import process, search
from iadjax.experiment.sweep.child import why_file
from iadjax.experiment.sweep.claims import Claim
from iadjax.experiment.sweep.plan import Job, Plan, jobs
from iadjax.experiment.sweep.store import read_plan
from iadjax.experiment.sweep.worker import STALE, Outcome, Task, failures, finished, work

__all__ = ["sweep", "tasks_of"]


def sweep(
    directory: Path, stale: float = STALE, wait: bool = True, say: Callable[[str], None] = progress.say
) -> dict[str, str]:
    """Does what is left of the sweep in a directory; with other workers, if there are any.

    Args:
      directory: holds a `sweep.json`.
      stale: seconds after which the claim of a silent worker is taken over.
      wait: whether to stay while other workers have the last runs.
      say: takes lines of progress.

    Returns:
      The sentence of every run that failed, by its name.

    Raises:
      UserError: the directory holds no sweep, or a trial of the search failed.
      Stopped: a signal came; the same call goes on.
    """
    plan = read_plan(directory)
    if plan.search:
        searched = search.tasks_of(directory, plan)
        work(searched, functools.partial(_trial, directory, stale), say, stale=stale, wait=True)
        failed = failures(searched)
        if failed:
            task, why = next(iter(failed.items()))
            raise UserError(f"the search stopped: {task.name} failed: {why}")
        search.choose(directory, plan, say)
    tasks = tasks_of(directory, plan)
    _write(directory, tasks)
    work(list(tasks), lambda task, claim: _run(directory, stale, tasks[task], task, claim), say, stale=stale, wait=wait,
         after=lambda: _write(directory, tasks))  # fmt: skip
    _write(directory, tasks)
    failed = failures(list(tasks))
    say(f"sweep: {len(finished(list(tasks)))} of {len(tasks)} runs finished{f', {len(failed)} failed' if failed else ''}")
    return {task.name: why for task, why in failed.items()}


def tasks_of(directory: Path, plan: Plan) -> dict[Task, Job]:
    """The runs of a sweep."""
    return {Task(directory / "jobs" / job.path, str(job)): job for job in jobs(plan)}


def _run(directory: Path, stale: float, job: Job, task: Task, claim: Claim) -> Outcome:
    return _call(task, claim, stale, "child", str(directory), job.label, job.category, str(job.seed))


def _trial(directory: Path, stale: float, task: Task, claim: Claim) -> Outcome:
    return _call(task, claim, stale, "trial", str(directory), task.mark.parent.name, task.mark.name)


def _call(task: Task, claim: Claim, stale: float, module: str, *words: str) -> Outcome:
    """The process of a run or trial; its log lies beside the mark of the task."""
    log = task.mark.with_name(f"{task.mark.name}.log")
    return process.call([f"iadjax.experiment.sweep.{module}", *words], log, why_file(task.mark), claim, stale)


def _write(directory: Path, tasks: dict[Task, Job]) -> None:
    """The tables of the runs that are finished."""
    done = [directory / "runs" / tasks[task].path for task in finished(list(tasks))]
    if done:
        failed = {task.name: why for task, why in failures(list(tasks)).items()}
        tables.write_tables(done, directory, lambda line: None, failed)
