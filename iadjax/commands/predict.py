"""Scores any images with a fitted detector, without a data set.

python scripts/predict.py --workdir=runs/mine --input=IMAGES --output=OUT
python scripts/predict.py --model=runs/mine/export/detector.stablehlo --input=IMAGES --output=OUT
python scripts/predict.py --workdir=runs/mine --input="frames/*.png" --output=OUT --save=overlays,maps,masks,contours
python scripts/predict.py --workdir=runs/mine --input=line.mp4 --output=OUT --save=          (scores alone)
python scripts/predict.py --workdir=runs/mine --input=IMAGES --output=OUT --resume --on_error=skip

OUT gets scores.csv (path,score,anomalous) row by row, and the files of each image. A stopped call goes on with --resume.
Exit status: 0; 2 for a mistake, in one sentence; 3 if images were skipped, which OUT/skipped.csv lists; 130 for Ctrl-C.
"""

import sys

from absl import flags

import iadjax
from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment import cli
from iadjax.experiment.fit import Stopped
from iadjax.experiment.outputs import SKIPPED
from iadjax.export import load_exported

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.")
_MODEL = flags.DEFINE_string("model", None, "A file of scripts/export.py, instead of --workdir.")
_INPUT = flags.DEFINE_string(
    "input", None, "An image, a video, a folder that is searched for images, or a quoted pattern of files.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory for scores.csv and the files of each image.", required=True)
_SAVE = flags.DEFINE_list(
    "save", ["overlays"], "Files of each image: overlays (PNG), maps (TIFF), masks (PNG), contours (JSON); empty for none."
)
_OVERLAY_SIZE = flags.DEFINE_integer("overlay_size", 1024, "Longer side of an overlay at most; 0 = that of the image.", 0)
_PIXEL_THRESHOLD = flags.DEFINE_float("pixel_threshold", None, "Of masks and contours; that of the run by default.")
_ON_ERROR = flags.DEFINE_enum("on_error", "stop", ["stop", "skip"], "At an image that cannot be read or scored.")
_RESUME = flags.DEFINE_boolean("resume", False, "Continue the call that wrote to --output, after its last row.")

_PLACES = cli.define_places()

SOME_SKIPPED = 3


def main() -> None:
    if (_WORKDIR.value is None) == (_MODEL.value is None):
        raise UserError("give either --workdir, a fitted run, or --model, an exported file")
    places = _PLACES()
    run = iadjax.load(_WORKDIR.value, **places) if _WORKDIR.value else load_exported(_MODEL.value, places["max_pixels"])
    output = files.place(_OUTPUT.value)
    try:
        count = iadjax.predict_files(
            run,
            _INPUT.value,
            output,
            save=[kind for kind in _SAVE.value if kind],
            overlay_size=_OVERLAY_SIZE.value,
            pixel_threshold=_PIXEL_THRESHOLD.value,
            on_error=_ON_ERROR.value,
            resume=_RESUME.value,
        )
    except KeyboardInterrupt:
        raise Stopped(f"interrupted; {output} keeps the scores so far: go on with --resume") from None
    print(files.printable(f"{count} images: {output / 'scores.csv'}"))
    if (output / SKIPPED).is_file():
        print(f"some images were skipped: {output / SKIPPED}", file=sys.stderr)
        sys.exit(SOME_SKIPPED)
