"""One run for every config, category and seed, and their table: `iadjax sweep` as a script.

`python scripts/sweep.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("sweep")
