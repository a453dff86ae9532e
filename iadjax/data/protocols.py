"""Protocols: a data set's index to train, validation and test items; seeded, and no detector has a branch on them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.errors import UserError, did_you_mean

__all__ = ["NAMES", "Split", "split"]

NAMES = ("few_shot", "supervised", "unsupervised")

# salts that keep the draws apart: which images are held out, which shots, which anomalies
_SHOTS, _ANOMALIES = 1, 2


class Split(NamedTuple):
    """Who is seen when: `train` by the detector, `validation` (held-out normals) by thresholds, `test` by metrics."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]


def split(
    dataset: Dataset, name: str, holdout: float, seed: int, *, k: int = 4, num_anomalies: int = 10, defect: str = ""
) -> Split:
    """The protocol `name` applied to a data set.

    Args:
      dataset: the index.
      name: "unsupervised": all normal training images but the held-out ones. "few_shot": `k` of them per category; the
        held-out ones are drawn from the rest. "supervised": as "unsupervised", and `num_anomalies` anomalous test images
        per category (or those of `dataset.anomalies` where there are any) go over to `train` with their labels (Ding et al.,
        CVPR 2022: the "general" setting, or with `defect` the "hard" one, where only one kind of defect is
        known and all of its images leave the test).
      holdout: fraction of the normal training images that is held out for thresholds, in [0, 1); 0 holds out none. A data
        set with a validation part of its own holds out that part instead, whatever the fraction above 0.
      seed: draws the images.
      k: shots per category, at least 1; "few_shot" only.
      num_anomalies: labelled anomalies per category, at least 1; "supervised" only.
      defect: the one known kind of defect, or "" for all; "supervised" only.

    Raises:
      UserError: an unknown name, or more images are asked for than there are.
    """
    if name not in NAMES:
        raise UserError(f"there is no protocol {name!r}; {did_you_mean(name, NAMES)}")
    if not 0 <= holdout < 1:
        raise UserError(f"threshold.holdout must be in [0, 1), got {holdout}")
    if not dataset.train:
        raise UserError(
            f"{dataset.name} has no normal training images, so nothing can be fitted on it; choose another data set"
        )
    # a published validation part is the held-out part
    count = 0 if holdout == 0 or dataset.validation else max(1, round(holdout * len(dataset.train)))
    if count >= len(dataset.train):
        raise UserError(f"threshold.holdout={holdout} leaves none of {len(dataset.train)} training images to fit on; lower it")
    held = set(np.random.default_rng(seed).permutation(len(dataset.train))[:count].tolist())
    train = tuple(item for i, item in enumerate(dataset.train) if i not in held)
    validation = tuple(item for i, item in enumerate(dataset.train) if i in held)
    if holdout and dataset.validation:
        validation = dataset.validation
    if name == "few_shot":
        shots = _per_category(dataset, train, k, (seed, _SHOTS), "protocol.k", "normal training images")
        return Split(tuple(item for item in train if item in shots), validation, dataset.test)
    if name == "supervised":
        # a published supervised split names the labelled anomalies itself
        pool = [item for item in dataset.anomalies or dataset.test if item.label]
        anomalies = [item for item in pool if not defect or item.defect == defect]
        if not anomalies:
            kinds = sorted({item.defect for item in pool})
            raise UserError(f"there is no defect {defect!r} in the images; {did_you_mean(defect, kinds)}")
        known = _per_category(
            dataset, anomalies, num_anomalies, (seed, _ANOMALIES), "protocol.num_anomalies", "anomalous images"
        )
        gone = known if not defect else {item for item in dataset.test if item.label and item.defect == defect}
        test = tuple(item for item in dataset.test if item not in gone)
        return Split(train + tuple(item for item in anomalies if item in known), validation, test)
    return Split(train, validation, dataset.test)


def _per_category(dataset: Dataset, items: Sequence[Item], count: int, seed: tuple[int, int], key: str, what: str) -> set[Item]:
    """`count` items of each category, whatever the order of the files."""
    drawn = set()
    for number, category in enumerate(dataset.categories):
        own = sorted((item for item in items if item.category == category), key=lambda item: item.path)
        if not 1 <= count <= len(own):
            raise UserError(f"{key} must be between 1 and the {len(own)} {what} of {category}, got {count}")
        rng = np.random.default_rng((*seed, number))
        drawn |= {own[i] for i in rng.permutation(len(own))[:count]}
    return drawn
