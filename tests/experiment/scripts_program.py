"""Calls scripts one after another in one process, because starting each takes seconds; prints what each says.

python -m tests.experiment.scripts_program CALLS.json
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path

from absl import flags

from iadjax import commands

ROOT = Path(__file__).parents[2]


def call(script: str, arguments: list[str]) -> dict:
    """Exit status and output of one call: of a script, or of a console command where it does not end with .py."""
    before = set(flags.FLAGS)
    for name in [name for name in sys.modules if name.startswith("iadjax.commands.")]:
        # it defines its flags anew
        del sys.modules[name]
    own = script.endswith(".py")
    sys.argv = [str(ROOT / "scripts" / script), *arguments] if own else ["iadjax", script, *arguments]
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if own:
                runpy.run_path(sys.argv[0], run_name="__main__")
            else:
                commands.main()
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException as error:  # what a user would see as a traceback
            status = f"{type(error).__name__}: {error}"
    for name in set(flags.FLAGS) - before:
        # an alias counts as one of absl's own
        if name.startswith("config.") or not flags.FLAGS.find_module_defining_flag(name).startswith("absl"):
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    calls = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps({name: call(script, arguments) for name, (script, arguments) in calls.items()}))
