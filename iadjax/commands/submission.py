"""Writes what the server of MVTec AD 2 takes, from a run on its private test images.

python scripts/train.py --config=configs/unsupervised/patchcore.py:mvtec_ad_2_private,category=can \
    --config.data.root=DIR --workdir=runs/can
python scripts/submission.py --workdir=runs/can --output=submission
"""

from absl import flags

from iadjax.errors import UserError
from iadjax.experiment import cli
from iadjax.experiment.submission import categories_missing, write_submission

_WORKDIR = flags.DEFINE_string("workdir", None, "An evaluated run with saved maps.")
_PLACES = cli.define_places()
_OUTPUT = flags.DEFINE_string("output", None, "The folder of the submission.")
_THRESHOLD = flags.DEFINE_float(
    "threshold", None, "A pixel is anomalous from this score on; by default the run's pixel threshold."
)


def main() -> None:
    if _WORKDIR.value is None or _OUTPUT.value is None:
        raise UserError("give --workdir=DIR of an evaluated run and --output=DIR for the submission")
    count = write_submission(_WORKDIR.value, _OUTPUT.value, _THRESHOLD.value, _PLACES()["data_root"])
    print(f"{count} maps: {_OUTPUT.value}")
    missing = categories_missing(_OUTPUT.value)
    print(
        f"categories still to come: {', '.join(missing)}" if missing else "all eight categories are there: check and pack them"
    )
