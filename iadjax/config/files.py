"""Config files: Python modules with a function `get_config`, the user's own or those that are shipped."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from iadjax import files
from iadjax.errors import UserError, did_you_mean

__all__ = ["find_config", "load_config", "load_module", "shipped"]

_PACKAGE = Path(__file__).parents[1]


def shipped() -> dict[str, Path]:
    """{"setting/detector.py": file} of the configs that come with iadjax."""
    # a wheel has them inside the package, a checkout beside it
    found = [folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()]
    return {f"{file.parent.name}/{file.name}": file for folder in found[:1] for file in sorted(folder.glob("*/*.py"))}


def find_config(path: str | Path) -> tuple[Path, str]:
    """The file and the argument of `FILE.py` or `FILE.py:ARGUMENT`; without an argument it is "".

    The path is taken as it stands. If there is no such file, it names a shipped config, `setting/detector.py` or without `.py`.

    Raises:
      UserError: there is neither.
    """
    # a folder above may have ".py" in its name
    parts = re.fullmatch(r"(.+?\.py)(?::(.*))?", str(path), re.DOTALL)
    if parts and files.place(parts[1]).is_file():
        return files.place(parts[1]), parts[2] or ""
    own = shipped()
    name, _, argument = str(path).removeprefix("configs/").partition(":")
    name = f"{name.removesuffix('.py')}.py"
    if name in own:
        return own[name], argument
    raise UserError(
        f"there is no config file {str(path)!r}; give --config=FILE.py or --config=FILE.py:ARGUMENT, a file of yours or a "
        f"shipped one: {did_you_mean(name, own)}"
    )


def load_module(path: str | Path) -> tuple[ModuleType, str]:
    """The module of a config file and the argument, as `find_config` finds them."""
    file, argument = find_config(path)
    spec = importlib.util.spec_from_file_location("iadjax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, argument


def load_config(path: str | Path) -> ConfigDict:
    """The config of a Python file, `FILE` or `FILE:ARGUMENT`: what its `get_config(argument)` returns.

    A path that leads to no file names a shipped config, like "unsupervised/patchcore.py:mvtec_ad,category=bottle".
    """
    module, argument = load_module(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"the config file {module.__file__} has no function get_config")
    return module.get_config(*([argument] if argument else []))
