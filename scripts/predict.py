"""Scores any images with a fitted detector, without a data set; writes OUT/scores.csv and one overlay per image.

python scripts/predict.py --workdir=runs/mine --input=IMAGES --output=OUT
python scripts/predict.py --model=runs/mine/export/detector.stablehlo --input=IMAGES --output=OUT
"""

from absl import flags

import iadjax
from iadjax.errors import UserError
from iadjax.experiment import cli
from iadjax.export import load_exported

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.")
_MODEL = flags.DEFINE_string("model", None, "A file of scripts/export.py, instead of --workdir.")
_INPUT = flags.DEFINE_string("input", None, "An image, or a folder that is searched for images.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory for scores.csv and the overlays.", required=True)


def main() -> None:
    if (_WORKDIR.value is None) == (_MODEL.value is None):
        raise UserError("give either --workdir, a fitted run, or --model, an exported file")
    run = iadjax.load(_WORKDIR.value) if _MODEL.value is None else load_exported(_MODEL.value)
    count = iadjax.predict_files(run, _INPUT.value, _OUTPUT.value)
    print(f"{count} images: {_OUTPUT.value}/scores.csv")


if __name__ == "__main__":
    cli.run(main)
