"""The space of a search: which options it may choose, from a JSON or Python file."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadjax import config as configs
from iadjax import files
from iadjax.errors import UserError

__all__ = ["check_space", "read_space"]

_FORM = 'like {"detector.coreset_ratio": {"low": 0.01, "high": 0.25, "log": true}, "detector.layers": {"choices": [...]}}'


def read_space(file: str | Path) -> dict[str, dict[str, Any]]:
    """The space in a file: a JSON object, or a Python file with such a dict as `SPACE`.

    A range is {"low", "high"}, with "log" (true: uniform in the logarithm) and "step" if wanted; two integers give integers.
    Or it is {"choices": [...]}, whose values may be lists.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    file = files.place(file)
    if not file.is_file():
        raise UserError(f"there is no file {file}; give --search=FILE.json or FILE.py with a space {_FORM}")
    if file.suffix == ".py":
        spec = importlib.util.spec_from_file_location("iadjax_space", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        space = getattr(module, "SPACE", None)
    else:
        space = files.read_json(file, f"a space is an object {_FORM}")
    if not isinstance(space, dict) or not space:
        raise UserError(f"{file} holds no space: {'SPACE ' if file.suffix == '.py' else ''}is a dict {_FORM}")
    return {key: _checked(file, key, value) for key, value in space.items()}


def _checked(file: Path, key: str, value: Any) -> dict[str, Any]:
    known = {"choices"} if isinstance(value, dict) and "choices" in value else {"low", "high", "log", "step"}
    if not isinstance(value, dict) or not set(value) <= known:
        raise UserError(f"{file}: {key} must be a range or choices, {_FORM}; got {value!r}")
    if "choices" in value:
        if not isinstance(value["choices"], list | tuple) or not value["choices"]:
            raise UserError(f"{file}: the choices of {key} must be a list that is not empty")
        return {"choices": [list(each) if isinstance(each, tuple) else each for each in value["choices"]]}
    ends = [value.get("low"), value.get("high")]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends) or not ends[0] < ends[1]:
        raise UserError(f"{file}: {key} needs numbers low < high; got {value!r}")
    if value.get("log") and ("step" in value or ends[0] <= 0):
        raise UserError(f"{file}: {key} with log needs a low above 0 and takes no step; got {value!r}")
    return dict(value)


def check_space(space: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> None:
    """A UserError where a resolved config has not got a key of the space, or a value in it does not fit."""
    for key, value in space.items():
        if key.split(".")[0] in ("seed", "evaluate", "threshold", "protocol") or key in (
            "data.name",
            "data.root",
            "data.category",
        ):
            raise UserError(f"the space holds {key}, which changes what is measured; a search is over options of the method")
        node: Any = config
        *groups, last = key.split(".")
        for group in groups:
            node = node.get(group) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or last not in node:
            raise UserError(
                f"the space holds {key}, which the config has not got; it has {', '.join(sorted(config['detector']))}"
            )
        for each in value["choices"] if "choices" in value else [value["low"], value["high"]]:
            section = dict(node) | {last: each}
            configs.resolve({**config, groups[0]: section} if len(groups) == 1 else dict(config))
