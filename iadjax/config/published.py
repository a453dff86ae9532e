"""Published figures as data: the rows that a config file quotes, each with its source and the protocol that it fixes."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from iadjax.config.files import load_module
from iadjax.errors import UserError

__all__ = ["IM_IAD", "Row", "differences", "published"]


IM_IAD = {
    "data.resize": 256,
    "data.crop": 0,
    "backbone.name": "wide_resnet50_2",
    "detector.embedding": "pool",
    "detector.reweight": True,
    "detector.num_neighbors": 9,
    "threshold.holdout": 0.0,
}
"""What all rows of PatchCore in IM-IAD (arXiv 2301.13359) fix."""


class Row(NamedTuple):
    """One row of a published table.

    Attributes:
      dataset: `data.name`.
      metrics: figures by their key in `metrics.json`, fractions of 1; means over the categories.
      source: paper (arXiv number) or repository, with the table.
      protocol: config keys with dots and the values that the row fixes.
      notes: what no key holds: "best epoch on the test set", "settings by category", a licence of data that it needs.
      arg: the argument of the config file that gives this protocol; "" is the data set alone.
    """

    dataset: str
    metrics: Mapping[str, float]
    source: str
    protocol: Mapping[str, Any]
    notes: str = ""
    arg: str = ""


def published(name: str) -> tuple[Row, ...]:
    """The rows that a config file quotes.

    Args:
      name: `setting/detector.py` of a shipped config, or any config file; the argument after a colon is left aside.

    Returns:
      Its `PUBLISHED`; empty if it quotes none.

    Raises:
      UserError: there is no such file, or its `PUBLISHED` holds something else than rows.
    """
    module, _ = load_module(name)
    rows = getattr(module, "PUBLISHED", ())
    if not isinstance(rows, Iterable) or not all(isinstance(row, Row) for row in rows):
        raise UserError(f"PUBLISHED in {name} must be a list of iadjax.config.Row")
    return tuple(rows)


def differences(row: Row, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where a resolved config departs from the protocol of a row: {key: (the row's value, the config's)}, empty if nowhere.

    A key that the config does not have counts as None.
    """
    found = {}
    for key, value in ({"data.name": row.dataset} | dict(row.protocol)).items():
        here: Any = config
        for part in key.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        if _plain(here) != _plain(value):
            found[key] = (value, here)
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
