"""Looks at a data set: a contact sheet per category, and what is odd: `iadjax inspect-data` as a script.

`python scripts/inspect_data.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("inspect_data")
