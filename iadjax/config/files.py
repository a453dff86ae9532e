"""Config files: Python modules with a function `get_config`."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from iadjax.errors import UserError

__all__ = ["load_config"]


def load_config(path: str) -> ConfigDict:
    """The config of a Python file, `FILE` or `FILE:ARGUMENT`: what its `get_config(argument)` returns."""
    name, _, argument = str(path).partition(".py")
    file = Path(f"{name}.py").expanduser()
    if not file.is_file() or (argument and not argument.startswith(":")):
        raise UserError(f"there is no config file {str(path)!r}; give --config=FILE.py or --config=FILE.py:ARGUMENT")
    spec = importlib.util.spec_from_file_location("iadjax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"the config file {file} has no function get_config")
    return module.get_config(*([argument[1:]] if argument else []))
