"""`sweep.json` holds the plan of a directory; every worker reads it, and a second call has to agree with it."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment.sweep.plan import Plan

__all__ = ["FILE", "once", "read_plan", "store_plan"]

FILE = "sweep.json"
ADVICE = "give another --workdir"


def store_plan(directory: Path, plan: Plan) -> None:
    """Writes `sweep.json`, or compares the plan with the one that is there.

    Raises:
      UserError: the directory holds another sweep, or other files.
    """
    file = directory / FILE
    others = [] if file.exists() or not directory.is_dir() else [each for each in os.listdir(directory) if not _of_us(each)]
    if others and not file.exists():
        raise UserError(f"{directory} holds other files ({sorted(others)[0]}) and no sweep; {ADVICE}")
    value = json.loads(json.dumps(plan._asdict()))
    once(file, value)
    stored = files.read_json(file, ADVICE)
    differing = _differences(stored, value)
    if differing:
        raise UserError(f"{directory} holds another sweep ({'; '.join(differing[:3])}); {ADVICE}, or leave the other flags out")


def _of_us(name: str) -> bool:
    return name.startswith(f".{FILE}") or name == FILE


def once(file: Path, value: Mapping[str, Any]) -> bool:
    """Writes a JSON file if there is none, and says whether; of several processes one succeeds, and none sees a part."""
    if file.exists():
        return False
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        files.write_json(temporary, value)
        # a link is made only where there is no file of the name
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _differences(stored: Any, now: Any, name: str = "") -> list[str]:
    """ "key was A, now B" of two JSON values."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*stored, *now]):
            path = f"{name}.{key}".lstrip(".")
            if key not in now or key not in stored:
                found.append(f"{path} is {'missing now' if key in stored else 'new'}")
            else:
                found += _differences(stored[key], now[key], path)
        return found
    return [] if stored == now else [f"{name} was {stored!r}, now {now!r}"]


def read_plan(directory: Path) -> Plan:
    """The plan of a directory.

    Raises:
      UserError: it holds no sweep, or the file is damaged.
    """
    file = directory / FILE
    if not file.is_file():
        raise UserError(f"{directory} holds no sweep yet; begin one with --config=FILE.py[:ARGUMENT]")
    value = files.read_json(file, ADVICE)
    if not isinstance(value.get("configs"), dict) or not isinstance(value.get("seeds"), list):
        raise UserError(f"{file} holds no plan of a sweep; {ADVICE}")
    return Plan(value["configs"], tuple(value["seeds"]), value.get("search"))
