"""Looks at a data set: a contact sheet per category with masks as outlines, counts, sizes, duplicates, faulty masks.

python scripts/inspect_data.py folder --root=DIR --output=OUT
python scripts/inspect_data.py visa --root=DIR --category=candle,pcb1 --output=OUT
"""

from absl import flags

from iadjax import data
from iadjax.errors import UserError
from iadjax.experiment import cli
from iadjax.report.inspection import inspect, summary

_ROOT = flags.DEFINE_string("root", "", "The folder of the data set, as published or prepared.")
_CATEGORY = flags.DEFINE_string("category", "all", "One category, several with commas, or all.")
_OUTPUT = flags.DEFINE_string("output", None, "Where report.json and the sheets go.")


def main(name: str) -> None:
    if _OUTPUT.value is None:
        raise UserError("give --output=DIR, where report.json and the contact sheets go")
    print(summary(inspect(data.load(name, root=_ROOT.value, category=_CATEGORY.value), _OUTPUT.value)))
    print(f"written: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main, arguments=("NAME",))
