"""Fits a detector, evaluates it and writes the report.

python scripts/train.py                                                     # PatchCore on built-in synthetic images
python scripts/train.py --config=configs/unsupervised/patchcore.py:folder --config.data.root=DIR --workdir=runs/mine
"""

import datetime
import json
from pathlib import Path

from absl import flags

import iadjax
from iadjax import data, files
from iadjax.experiment import cli
from iadjax.parallel import distributed

CONFIG = "unsupervised/patchcore.py"
_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; a fresh one under runs/ by default.")
_JOIN = cli.define_processes()
_RESUME = flags.DEFINE_bool("resume", False, "Continue the run in --workdir.")


def main() -> None:
    name = f"{_CONFIG.value.detector.name}-{_CONFIG.value.data.name}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
    _JOIN()
    workdir = files.place(_WORKDIR.value or cli.one_process("--workdir=DIR", Path("runs") / name))
    if _CONFIG.value.protocol.name in data.SEQUENCES:
        iadjax.fit_sequence(_CONFIG.value, workdir, resume=_RESUME.value)
    else:
        run = iadjax.fit(_CONFIG.value, workdir, resume=_RESUME.value)
        if not (run.data.split.test or run.data.split.validation):
            print(f"run:    {workdir}\nthere are no images to evaluate it on: the test part is empty and none are held out")
            return
        iadjax.evaluate(run, output=workdir)
    if distributed.is_main():
        iadjax.print_metrics(json.loads((workdir / "metrics.json").read_text(encoding="utf-8")))
        print(f"run:    {workdir}\nreport: {workdir / 'report' / 'index.html'}")
