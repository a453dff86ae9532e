"""Many runs, and the table of them; `iadjax.commands.sweep` says how it is called."""

from iadjax.commands import sweep
from iadjax.experiment import cli

if __name__ == "__main__":
    cli.run(sweep.main)
