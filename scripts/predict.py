"""Scores any images with a fitted detector: `iadjax predict` as a script.

`python scripts/predict.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("predict")
