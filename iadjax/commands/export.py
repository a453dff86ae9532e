"""Writes a fitted detector as one file that runs without its configs; checks it against the original first.

python scripts/export.py --workdir=runs/mine                        # DIR/export/detector.stablehlo and its .json
python scripts/export.py --workdir=runs/mine --format=onnx
python scripts/predict.py --model=runs/mine/export/detector.stablehlo --input=IMAGES --output=OUT
"""

from absl import flags

import iadjax
from iadjax import files
from iadjax.experiment import cli
from iadjax.export import export

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the file; export/ in the workdir by default.")
_FORMAT = flags.DEFINE_string("format", "stablehlo", "stablehlo or onnx.")
_PLACES = cli.define_places()
_BATCH = flags.DEFINE_integer("batch", 0, "Images that the program takes at a time; 0: any number, one after the other.", 0)


def main() -> None:
    output = files.place(_OUTPUT.value) if _OUTPUT.value else files.place(_WORKDIR.value) / "export"
    path = export(iadjax.load(_WORKDIR.value, **_PLACES()), output, _FORMAT.value, _BATCH.value)
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB) and {path.name}.json")
