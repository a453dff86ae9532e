"""Metrics of a fitted run, or of any tool's files, without fitting.

python scripts/evaluate.py --workdir=runs/mine
python scripts/evaluate.py --workdir=runs/mine --eval_size=256 --output=DIR
python scripts/evaluate.py --scores=scores.csv --maps=MAPS --masks=MASKS --output=DIR     (no network is run)
"""

import dataclasses

from absl import flags

import iadjax
from iadjax import files
from iadjax.experiment import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.")
_SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; the workdir by default.")
_EVAL_SIZE = flags.DEFINE_integer("eval_size", None, "Side of the maps and masks for pixel metrics; 0 = the masks' own.")
_SCORES = flags.DEFINE_string("scores", None, "A table path,category,label,score.")
_MAPS = flags.DEFINE_string("maps", None, "A folder of anomaly maps: TIFF, NPY or PNG.")
_MASKS = flags.DEFINE_string("masks", None, "A folder of masks.")
_PLACES = cli.define_places()
_MASK_THRESHOLD = flags.DEFINE_string("mask_threshold", "auto", "Values of a mask above this number mark a defect; or auto.")


def main() -> None:
    if _WORKDIR.value is None:
        table = iadjax.metrics.evaluate_files(_SCORES.value, _MAPS.value, _MASKS.value, _EVAL_SIZE.value, _MASK_THRESHOLD.value)
        iadjax.print_metrics(table)
        if _OUTPUT.value is not None:
            files.write_json(files.place(_OUTPUT.value) / "metrics.json", table)
        return
    if _SCORES.value or _MAPS.value or _MASKS.value:
        raise iadjax.UserError("give either --workdir, or --scores, --maps and --masks")
    if _EVAL_SIZE.value is not None and _EVAL_SIZE.value < 0:
        raise iadjax.UserError(f"--eval_size must be at least 0 (0: the masks' own size), got {_EVAL_SIZE.value}")
    run = iadjax.load(_WORKDIR.value, **_PLACES())
    if _EVAL_SIZE.value is not None:
        evaluate = {**run.config["evaluate"], "eval_size": _EVAL_SIZE.value}
        run = dataclasses.replace(run, config={**run.config, "evaluate": evaluate})
    output = files.place(_OUTPUT.value or _WORKDIR.value)
    iadjax.print_metrics(iadjax.evaluate(run, _SPLIT.value, output))
    print(f"report: {output / 'report' / 'index.html'}")
