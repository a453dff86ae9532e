"""Protocols: a data set's index to train, validation and test items; seeded, and no detector has a branch on them."""

from typing import NamedTuple

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.errors import UserError, did_you_mean

__all__ = ["NAMES", "Split", "split"]

NAMES = ("unsupervised",)


class Split(NamedTuple):
    """Who is seen when: `train` by the detector, `validation` (held-out normals) by thresholds, `test` by metrics."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]


def split(dataset: Dataset, name: str, holdout: float, seed: int) -> Split:
    """The protocol `name` applied to a data set.

    Args:
      dataset: the index.
      name: one of `NAMES`.
      holdout: fraction of the normal training images that is held out for thresholds, in [0, 1); 0 holds out none.
      seed: draws the held-out images.
    """
    if name not in NAMES:
        raise UserError(f"there is no protocol {name!r}; {did_you_mean(name, NAMES)}")
    if not 0 <= holdout < 1:
        raise UserError(f"threshold.holdout must be in [0, 1), got {holdout}")
    count = 0 if holdout == 0 else max(1, round(holdout * len(dataset.train)))
    if count >= len(dataset.train):
        raise UserError(f"threshold.holdout={holdout} leaves none of {len(dataset.train)} training images to fit on; lower it")
    held = set(np.random.default_rng(seed).permutation(len(dataset.train))[:count].tolist())
    train = tuple(item for i, item in enumerate(dataset.train) if i not in held)
    validation = tuple(item for i, item in enumerate(dataset.train) if i in held)
    return Split(train, validation, dataset.test)
