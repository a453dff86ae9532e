"""Metrics of a fitted run, or of any tool's files: `iadjax evaluate` as a script.

`python scripts/evaluate.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("evaluate")
