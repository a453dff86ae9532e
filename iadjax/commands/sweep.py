"""Every config on every category with every seed, and the table of them; the same call goes on where it was stopped.

python scripts/sweep.py --config=configs/unsupervised/patchcore.py:synthetic --categories=washer,wood --seeds=3 --workdir=DIR
python scripts/sweep.py --config=A.py --config=B.py --categories=all --seeds=0,5 --config.data.root=IMAGES --workdir=DIR
python scripts/sweep.py --workdir=DIR                       (one more worker, or what is left of the sweep)
python scripts/sweep.py --config=A.py --search=space.json --trials=50 --workdir=DIR
python scripts/sweep.py --config=A.py --workdir=DIR --submit=slurm --workers=8 --partition=gpu --gpus=1
"""

import sys

import jax
from absl import flags

from iadjax import files, progress
from iadjax.errors import UserError
from iadjax.experiment.sweep import search as searches
from iadjax.experiment.sweep import submit
from iadjax.experiment.sweep.plan import make_plan
from iadjax.experiment.sweep.run import sweep
from iadjax.experiment.sweep.space import read_space
from iadjax.experiment.sweep.store import FILE, read_plan, store_plan
from iadjax.experiment.sweep.worker import STALE

FAILED = 1
"""Exit status when a run has failed."""


def _define_overrides(words: list[str]) -> dict[str, flags.FlagHolder]:
    """A flag for every --config.key=value of the command line: absl has to know them, and configs are read later."""
    names = dict.fromkeys(word.lstrip("-").partition("=")[0] for word in words if word.startswith("-"))
    found = {}
    for name in [name for name in names if name.startswith("config.")]:
        found[name.removeprefix("config.")] = flags.DEFINE_string(name, None, "A key of all configs.")
    return found


_CONFIG = flags.DEFINE_multi_string("config", [], "FILE.py or FILE.py:ARGUMENT; may be given several times.")
_CATEGORIES = flags.DEFINE_string("categories", "", "Names with commas, or all; those of each config by default.")
_SEEDS = flags.DEFINE_string("seeds", "1", "A number of seeds, from 0, or a list with commas.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep; several workers may share it.")
_STALE = flags.DEFINE_float("stale_seconds", STALE, "A worker that is silent for so long is dead: its run is taken over.", 1.0)
_WAIT = flags.DEFINE_bool("wait", True, "Stay while other workers have the last runs, to take over those of dead ones.")
_SEARCH = flags.DEFINE_string("search", None, "A file with a space of options, .json or .py: search them by Optuna first.")
_TRIALS = flags.DEFINE_integer("trials", 20, "Trials of the search, for each config.")
_METRIC = flags.DEFINE_string("search_metric", "image_auroc", "What the search maximises.")
_STORAGE = flags.DEFINE_string("search_storage", "journal", "journal, sqlite, or an address like sqlite:////DIR/FILE.db.")
_ON_TEST = flags.DEFINE_bool("search_on_test", False, "Search on the test set; the table then says so.")
_SUBMIT = flags.DEFINE_string("submit", None, "slurm or local: submit workers by submitit instead of working here.")
_WORKERS = flags.DEFINE_integer("workers", 1, "How many workers --submit starts.")
_TIMEOUT = flags.DEFINE_integer("timeout_minutes", 240, "Time limit of a submitted worker.")
_PARTITION = flags.DEFINE_string("partition", None, "SLURM's partition.")
_ACCOUNT = flags.DEFINE_string("account", None, "SLURM's account.")
_GPUS = flags.DEFINE_integer("gpus", None, "GPUs of a submitted worker.")
_CPUS = flags.DEFINE_integer("cpus", None, "CPU cores of a submitted worker.")
_MEMORY = flags.DEFINE_float("memory_gb", None, "Memory of a submitted worker.")
_KEYS = _define_overrides(sys.argv[1:])


def main() -> None:
    # the runs have the accelerator, each in a process of its own; this one only checks and waits
    jax.config.update("jax_platforms", "cpu")
    if _WORKDIR.value is None:
        raise UserError("give --workdir=DIR, where the runs and the table go")
    directory = files.place(_WORKDIR.value).absolute()
    if _SUBMIT.value is not None:
        submit.check(_SUBMIT.value, _WORKERS.value)
    if _CONFIG.value or not (directory / FILE).is_file():
        _plan(directory)
    elif any(flags.FLAGS[name].present for name in ("categories", "seeds", "search")) or _KEYS:
        raise UserError("give --config as well, as in the first call; or --workdir alone, to go on with that sweep")
    if _SUBMIT.value is not None:
        _submit(directory)
        return
    failed = sweep(directory, _STALE.value, _WAIT.value)
    table = directory / "table.md"
    if table.is_file():
        print(table.read_text(encoding="utf-8").partition("\n## ")[0])
        print(f"page: {directory / 'index.html'}")
    if failed:
        for name, why in failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        sys.exit(FAILED)


def _plan(directory) -> None:
    how = None
    if _SEARCH.value is not None:
        how = searches.make_search(read_space(_SEARCH.value), _TRIALS.value, _METRIC.value, _STORAGE.value, _ON_TEST.value)
    elif _ON_TEST.value:
        raise UserError("--search_on_test is for a search; give --search=FILE as well")
    overrides = {key: flag.value for key, flag in _KEYS.items()}
    plan = make_plan(_CONFIG.value, _CATEGORIES.value, _SEEDS.value, overrides, how)
    if how:
        searches.check(directory, plan)
    store_plan(directory, plan)


def _submit(directory) -> None:
    given = {
        **{"cpus_per_task": _CPUS.value, "gpus_per_node": _GPUS.value, "mem_gb": _MEMORY.value},
        **{"slurm_partition": _PARTITION.value, "slurm_account": _ACCOUNT.value},
    }
    options = {key: value for key, value in given.items() if value is not None}
    plan = read_plan(directory)
    made = submit.submit(directory, _SUBMIT.value, _WORKERS.value, _STALE.value, timeout_min=_TIMEOUT.value, **options)
    progress.say(
        f"sweep: submitted {len(made)} workers for {len(plan.configs)} configs: {', '.join(job.job_id for job in made)}"
    )
    print(f"submitted: {', '.join(job.job_id for job in made)}\nlogs: {directory / 'jobs' / 'submitit'}")
    if _SUBMIT.value == "local":
        # submitit ends processes of this machine with the one that began them
        for job in made:
            job.wait()
        print(f"page: {directory / 'index.html'}")
