"""The process of one run of a sweep: python -m iadjax.experiment.sweep.child DIR LABEL CATEGORY SEED."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iadjax import files
from iadjax.cpu import allocator as malloc
from iadjax.errors import UserError
from iadjax.experiment.evaluate import evaluate
from iadjax.experiment.fit import Stopped, fit
from iadjax.experiment.sweep.plan import Job, config_of
from iadjax.experiment.sweep.process import FAILED, end_with_parent
from iadjax.experiment.sweep.store import read_plan

__all__ = ["guarded", "run_job", "why_file"]


def why_file(mark: Path) -> Path:
    """Where a process says why it failed."""
    return mark.with_name(f"{mark.name}.why.json")


def run_job(directory: Path, job: Job) -> None:
    """Fits and evaluates one run of the sweep in `directory`, or goes on with it; `run.json` then names the sweep's config.

    Raises:
      UserError: bad input, or there are no images to evaluate the run on.
    """
    plan, workdir = read_plan(directory), directory / "runs" / job.path
    found = best(directory, job.label) if plan.search else {}
    run = fit(config_of(plan, job, found.get("options")), workdir, resume=True)
    if not (run.data.split.test or run.data.split.validation):
        raise UserError("there are no images to evaluate it on: the test part is empty and none are held out")
    evaluate(run, output=workdir)
    record = files.read_json(workdir / "run.json", "remove the run")
    entry = plan.configs[job.label]
    by_category = sorted({key for each in entry["by_category"].values() for key in each})
    record["sweep"] = {"config": entry["name"], "search": found.get("about"), "by_category": by_category}
    files.write_json(workdir / "run.json", record)


def best(directory: Path, label: str) -> dict[str, Any]:
    """What the search of a config found: {"options": values by dotted key, "about": how}."""
    return files.read_json(directory / "search" / label / "best.json", "remove it and search again")


def guarded(main: Callable[[], None], why: Path) -> None:
    """Ends the process with 0, with 130 after a signal, or with a sentence in the file `why`."""
    end_with_parent()
    malloc.keep_freed()
    try:
        main()
    except (Stopped, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first[:300]} (its log has more)"
        files.write_json(why, {"sentence": sentence})
        sys.exit(FAILED)
    # threads of libraries need not be waited for
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _directory, _label, _category, _seed = sys.argv[1:]
    _job = Job(_label, _category, int(_seed))
    guarded(lambda: run_job(Path(_directory), _job), why_file(Path(_directory, "jobs", _job.path)))
