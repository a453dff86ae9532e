"""Checks a published data set and writes it as ArrayRecord files: `iadjax prepare-data` as a script.

`python scripts/prepare_data.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("prepare_data")
