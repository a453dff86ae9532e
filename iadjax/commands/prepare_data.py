"""Checks a published data set against its published counts and writes it as TFDS ArrayRecord files.

python scripts/prepare_data.py mvtec_ad --describe
python scripts/prepare_data.py mvtec_ad --manual_dir=DIR [--output=OUT] [--allow_incomplete]

Then train with --config.data.name=mvtec_ad --config.data.root=OUT. The folders as published can be given as data.root too:
preparing is a check and a faster form, not a need.
"""

import sys

from absl import flags

from iadjax.data.prepared.prepare import describe, prepare
from iadjax.errors import UserError

ARGUMENTS = ("NAME",)

_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "The folder of the data set as published.")
_OUTPUT = flags.DEFINE_string("output", "~/tensorflow_datasets", "The folder of prepared data sets.")
_ALLOW_INCOMPLETE = flags.DEFINE_bool("allow_incomplete", False, "Write what is there, and record what is missing.")
_DESCRIBE = flags.DEFINE_bool("describe", False, "Print layout, counts, licence, citation and address, and stop.")


def main(name: str) -> None:
    if _DESCRIBE.value:
        print(describe(name))
        return
    if _MANUAL_DIR.value is None:
        raise UserError(f"give --manual_dir=DIR, the folder of {name} as published, or --describe")
    folder, differences = prepare(name, _MANUAL_DIR.value, _OUTPUT.value, _ALLOW_INCOMPLETE.value)
    for each in differences:
        print(f"warning: {each}", file=sys.stderr)
    print(f"prepared: {folder}")
