"""Scores any images with a fitted detector, without a data set; writes OUT/scores.csv and one overlay per image.

python scripts/predict.py --workdir=runs/mine --input=IMAGES --output=OUT
"""

from absl import flags

import iadjax
from iadjax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.", required=True)
_INPUT = flags.DEFINE_string("input", None, "An image, or a folder that is searched for images.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory for scores.csv and the overlays.", required=True)


def main() -> None:
    count = iadjax.predict_files(iadjax.load(_WORKDIR.value), _INPUT.value, _OUTPUT.value)
    print(f"{count} images: {_OUTPUT.value}/scores.csv")


if __name__ == "__main__":
    cli.run(main)
