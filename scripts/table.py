"""Tables of any runs, with published figures beside them: `iadjax table` as a script.

`python scripts/table.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("table")
