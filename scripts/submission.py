"""Writes what the server of MVTec AD 2 takes: `iadjax submission` as a script.

`python scripts/submission.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("submission")
