"""Tables of any runs; `iadjax.commands.table` says how it is called."""

from iadjax.commands import table
from iadjax.experiment import cli

if __name__ == "__main__":
    cli.run(table.main, arguments=table.ARGUMENTS)
