"""Fits a detector, evaluates it and writes the report: `iadjax train` as a script.

`python scripts/train.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("train")
