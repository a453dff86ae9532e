"""Published figures beside a run: the one place that reads the `PUBLISHED` rows of config files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadjax import config as configs
from iadjax.config import Row
from iadjax.data.sources import published as builders
from iadjax.errors import UserError
from iadjax.experiment.tables.collect import Figures

__all__ = ["all_categories", "beside", "config_name", "differing", "published_rows"]


def published_rows(name: str) -> tuple[Row, ...]:
    """The rows that the config `setting/detector.py` quotes; none where it quotes none or there is no such config."""
    try:
        return configs.published(name)
    except UserError:
        return ()


def config_name(run: Figures) -> str:
    """The shipped config of a run: `setting/detector.py` by what the run holds."""
    return f"{run.config['protocol']['name']}/{run.config['detector']['name']}.py"


def beside(run: Figures) -> Row | None:
    """The published row for a run: of its data set, and the one whose protocol differs least; None for a `quick` run."""
    if run.config.get("quick"):
        return None
    given = run.record.get("sweep", {}).get("config", "").partition(".py")[0]
    names = [config_name(run), *([f"{'/'.join(Path(given).parts[-2:])}.py"] if given else [])]
    rows = [row for name in dict.fromkeys(names) for row in published_rows(name) if row.dataset == run.config["data"]["name"]]
    return min(rows, key=lambda row: len(differing(row, run.config)), default=None)


def differing(row: Row, config: Mapping[str, Any]) -> list[str]:
    """ "key: the row's value, here another" for every key of the row's protocol that the config does not hold."""
    found = configs.differences(row, config)
    return [f"{key} {_plain(theirs)!r}, here {_plain(here)!r}" for key, (theirs, here) in found.items()]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def all_categories(dataset: str) -> tuple[str, ...]:
    """The published categories of a data set; empty where it is not a published one."""
    return tuple(builders.module(dataset).CATEGORIES) if dataset in builders.MODULES else ()
