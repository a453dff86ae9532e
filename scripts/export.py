"""Writes a fitted detector as one file that runs without its configs: `iadjax export` as a script.

`python scripts/export.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("export")
