"""Config files: Python modules with a function `get_config`."""

import importlib.util
import re

from ml_collections import ConfigDict

from iadjax import files
from iadjax.errors import UserError

__all__ = ["load_config"]


def load_config(path: str) -> ConfigDict:
    """The config of a Python file, `FILE` or `FILE:ARGUMENT`: what its `get_config(argument)` returns."""
    # a folder above may have ".py" in its name
    parts = re.fullmatch(r"(.+?\.py)(:.*)?", str(path), re.DOTALL)
    file = files.place(parts[1]) if parts else None
    if file is None or not file.is_file():
        raise UserError(f"there is no config file {str(path)!r}; give --config=FILE.py or --config=FILE.py:ARGUMENT")
    spec = importlib.util.spec_from_file_location("iadjax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"the config file {file} has no function get_config")
    return module.get_config(*([parts[2][1:]] if parts[2] and parts[2] != ":" else []))
