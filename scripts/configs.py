"""Lists the shipped configs: `iadjax configs` as a script.

`python scripts/configs.py --help` has its examples and flags.
"""

from iadjax.commands import run

if __name__ == "__main__":
    run("configs")
