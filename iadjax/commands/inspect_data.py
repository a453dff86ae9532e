"""Looks at a data set: a contact sheet per category with masks as outlines, counts, sizes, ranges of values, duplicates, masks.

python scripts/inspect_data.py folder --root=DIR --output=OUT
python scripts/inspect_data.py folder --normal=GOOD [--abnormal=BAD] [--masks=MASKS] --output=OUT
python scripts/inspect_data.py visa --root=DIR --category=candle,pcb1 --output=OUT
"""

from pathlib import Path

from absl import flags

from iadjax import data
from iadjax.data.opening import MAX_PIXELS
from iadjax.errors import UserError
from iadjax.report.inspection import inspect, summary

ARGUMENTS = ("NAME",)

_ROOT = flags.DEFINE_string("root", "", "The folder of the data set, as published or prepared.")
_CATEGORY = flags.DEFINE_string("category", "all", "One category, several with commas, or all.")
_NORMAL = flags.DEFINE_string("normal", "", "A folder of normal images, of the data set folder.")
_ABNORMAL = flags.DEFINE_string("abnormal", "", "A folder of anomalous images; with --normal.")
_MASKS = flags.DEFINE_string("masks", "", "The folder of their masks; with --abnormal.")
_MASK_THRESHOLD = flags.DEFINE_string("mask_threshold", "auto", "data.mask_threshold, of the data set folder.")
_RANGE = flags.DEFINE_string("value_range", "auto", "data.value_range: what becomes 1.0 in files of more than 8 bits.")
_CHANNELS = flags.DEFINE_string("channels", "auto", "data.channels, like 0,1,2.")
_PIXELS = flags.DEFINE_integer("max_pixels", MAX_PIXELS, "data.max_pixels, 0: no limit.")
_OUTPUT = flags.DEFINE_string("output", None, "Where report.json and the sheets go.")


def main(name: str) -> None:
    if _OUTPUT.value is None:
        raise UserError("give --output=DIR, where report.json and the contact sheets go")
    options = {"value_range": data.check_value_range(_RANGE.value), "max_pixels": _PIXELS.value}
    plain = {"normal": _NORMAL.value, "abnormal": _ABNORMAL.value, "masks": _MASKS.value}
    if name == "folder":
        own = {**plain, "mask_threshold": _MASK_THRESHOLD.value}
    elif any(plain.values()):
        raise UserError(f"--normal, --abnormal and --masks are for the data set folder, not for {name}")
    else:
        own = {}
    dataset = data.load(
        name, root=_ROOT.value, category=_CATEGORY.value, channels=_CHANNELS.value, **options, **own
    )  # fmt: skip
    base = Path(_ROOT.value).expanduser()
    folders = [base / Path(each).expanduser() for each in plain.values() if each] or ([base] if _ROOT.value else [])
    print(summary(inspect(dataset, _OUTPUT.value, folders, **options)))
    print(f"written: {_OUTPUT.value}")
