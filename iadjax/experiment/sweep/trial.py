"""The process of one trial of a search: python -m iadjax.experiment.sweep.trial DIR LABEL NUMBER."""

import shutil
import sys
from pathlib import Path

import numpy as np

from iadjax.errors import UserError
from iadjax.experiment.evaluate import evaluate
from iadjax.experiment.fit import fit
from iadjax.experiment.load import read_config
from iadjax.experiment.sweep import objective, search
from iadjax.experiment.sweep.child import guarded, why_file
from iadjax.experiment.sweep.plan import Job, config_of
from iadjax.experiment.sweep.store import read_plan

__all__ = ["run_trial"]


def run_trial(directory: Path, label: str, number: int) -> None:
    """Fits one trial on every category with the first seed, and tells the study its mean objective.

    Raises:
      UserError: a fit fails, or the objective is not defined.
    """
    plan = read_plan(directory)
    study, trial, options = search.options_of(directory, plan, label, number)
    if trial_is_told(study, trial.number):
        return
    values = []
    for category in plan.configs[label]["categories"]:
        job = Job(label, category, plan.seeds[0])
        workdir = directory / "search" / label / "trials" / str(number) / job.path.parts[1]
        config = config_of(plan, job, options)
        if not config["threshold"]["holdout"]:
            config["threshold"]["holdout"] = search.HOLDOUT
        if (workdir / "config.json").is_file() and read_config(workdir)["detector"] != config["detector"]:
            # of a trial of this number that another study began
            shutil.rmtree(workdir)
        run = fit(config, workdir, resume=True)
        if plan.search["on_test"]:
            value = evaluate(run, "test", speed=False)["mean"][plan.search["metric"]]
        else:
            value = objective.measure(run, plan.search["metric"], plan.search["seed"])
        values.append(value)
        # the numbers stay in the study; banks and checkpoints would fill the disk
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
        shutil.rmtree(workdir / "weights", ignore_errors=True)
    if not np.isfinite(values).all():
        raise UserError(f"{plan.search['metric']} is not defined for every category of {label}: {values}")
    study.tell(trial.number, float(np.mean(values)))


def trial_is_told(study, number: int) -> bool:
    """Whether the study knows the value of a trial: the process may have ended just after it told it."""
    return next(each for each in study.get_trials(deepcopy=False) if each.number == number).state.is_finished()


if __name__ == "__main__":
    _directory, _label, _number = sys.argv[1:]
    _mark = Path(_directory, "jobs", "search", _label, _number)
    guarded(lambda: run_trial(Path(_directory), _label, int(_number)), why_file(_mark))
