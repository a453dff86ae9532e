"""Protocols: which images of a data set are for training, validation and test. No detector knows the protocol."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.errors import UserError, did_you_mean

__all__ = ["NAMES", "SEQUENCES", "Split", "split"]

SEQUENCES = ("continual", "transfer")
"""Protocols of several successive fits: `iadjax.fit_sequence`."""

NAMES = ("few_shot", "multi_class", "noisy", "supervised", "unsupervised", "zero_shot", *SEQUENCES)

MOST_NOISE = 0.75
"""The largest fraction of the anomalous test images that "noisy" may move (IM-IAD)."""

# salts: shots, labelled anomalies, label noise and held-out images are drawn independently
_SHOTS, _ANOMALIES, _NOISE = 1, 2, 3


class Split(NamedTuple):
    """`train` is for the detector, `validation` (held-out normal images) for thresholds, `test` for metrics."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]


def split(
    dataset: Dataset,
    name: str,
    holdout: float,
    seed: int,
    *,
    num_shots: int = 4,
    shots_by_name: bool = False,
    rotations: int = 1,
    num_anomalies: int = 10,
    defect: str = "",
    noise_ratio: float = 0.1,
    keep_in_test: bool = False,
    test_batch: bool = False,
    source: str = "",
    source_root: str = "",
) -> Split:
    """Applies the protocol `name` to a data set.

    - "unsupervised": all normal training images but the held-out ones.
    - "multi_class": the same, with several categories: one model for all of them (You et al., NeurIPS 2022).
    - "few_shot": `num_shots` normal images per category; the held-out ones are others. Of each shot there are `rotations`
      copies, rotated by equal steps, the shot itself included (IM-IAD, Xie et al. 2023: 5).
    - "noisy": label noise. Per category, `noise_ratio` times the number of training images (Xie et al.'s code) are anomalous
      test images that pass for normal, but at most 75 % of those. They leave the test, unless `keep_in_test` is set.
    - "supervised": as "unsupervised", and `num_anomalies` anomalous images per category are added to `train` with their labels.
      They come from `dataset.anomalies` if there are any, else from the test. That is the "general" setting of Ding et al.
      (CVPR 2022). With `defect` it is their "hard" setting: one kind of defect is known, and all of its images leave the test.
    - "zero_shot": no training and no held-out images. With `test_batch` the detector is fitted on the unlabelled test images
      (batched zero-shot); no other protocol shows test images to a detector. With `source` it is trained on the test images
      of another data set, their labels and masks (`Dataset.auxiliary`).
    - "continual" and "transfer" are sequences of fits; each of their steps is "unsupervised" or "few_shot".

    Args:
      dataset: the index.
      name: see above.
      holdout: fraction of the normal training images that is held out for thresholds, in [0, 1); 0 holds out none. A data
        set with a validation part of its own holds out that part instead, for any fraction above 0.
      seed: draws the images.
      num_shots, rotations: "few_shot" and "transfer" only, at least 1.
      shots_by_name: the shots are the images `seed` * `num_shots` onwards in the order of their names, of all normal training
        images, as AnomalyDINO's authors take them; otherwise they are drawn with `seed`.
      num_anomalies, defect: "supervised" only: labelled anomalies per category, and the one known kind or "" for all.
      noise_ratio, keep_in_test: "noisy" only.
      test_batch: "zero_shot" only.
      source, source_root: read before: "zero_shot" by `config.build_data`, "transfer" by `iadjax.fit_sequence`.

    Raises:
      UserError: an unknown name, or more images are asked for than there are.
    """
    del source, source_root
    if name not in NAMES:
        raise UserError(f"there is no protocol {name!r}; {did_you_mean(name, NAMES)}")
    if name in SEQUENCES:
        raise UserError(f"the protocol {name} is a sequence of fits; run it by scripts/train.py or iadjax.fit_sequence")
    if not 0 <= holdout < 1:
        raise UserError(f"threshold.holdout must be in [0, 1), got {holdout}")
    if name == "zero_shot":
        # labels are taken away, so that nothing can learn from them
        if not dataset.test:
            raise UserError(f"zero_shot scores the test images, and {dataset.name} has none; add some or take another protocol")
        if test_batch and dataset.auxiliary:
            raise UserError("zero_shot is fitted on the test images or on protocol.source, not on both; unset one of them")
        seen = tuple(item._replace(label=0) for item in dataset.test) if test_batch else dataset.auxiliary
        return Split(seen, (), dataset.test)
    if not dataset.train:
        raise UserError(
            f"{dataset.name} has no normal training images, so nothing can be fitted on it; choose another data set"
        )
    if name == "multi_class" and len(dataset.categories) < 2:
        raise UserError(f"multi_class needs several categories, and data.category names one: {dataset.categories[0]}")
    train, validation = _hold_out(dataset, holdout, seed)
    if name == "few_shot":
        if shots_by_name:
            shots = _first_by_name(dataset, num_shots, seed)
            validation = tuple(item for item in validation if item not in shots)
        else:
            shots = _per_category(dataset, train, num_shots, (seed, _SHOTS), "protocol.num_shots", "normal training images")
        return Split(_rotated([item for item in dataset.train if item in shots], rotations), validation, dataset.test)
    if name == "noisy":
        return _noisy(dataset, train, validation, noise_ratio, keep_in_test, seed)
    if name == "supervised":
        return _supervised(dataset, train, validation, num_anomalies, defect, seed)
    return Split(train, validation, dataset.test)


def _hold_out(dataset: Dataset, holdout: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Training and held-out normal images."""
    if holdout and dataset.validation:
        # a published validation part is the held-out part
        return dataset.train, dataset.validation
    # whatever the order of the files
    by_path = sorted(range(len(dataset.train)), key=lambda i: dataset.train[i].path)
    count = 0 if holdout == 0 else max(1, round(holdout * len(by_path)))
    if count >= len(by_path):
        raise UserError(f"threshold.holdout={holdout} leaves none of {len(by_path)} training images to fit on; lower it")
    held = {by_path[i] for i in np.random.default_rng(seed).permutation(len(by_path))[:count]}
    parts = [tuple(item for i, item in enumerate(dataset.train) if (i in held) == wanted) for wanted in (False, True)]
    return parts[0], parts[1]


def _first_by_name(dataset: Dataset, num_shots: int, seed: int) -> set[Item]:
    shots = set()
    for category in dataset.categories:
        own = sorted((item for item in dataset.train if item.category == category), key=lambda item: item.path)
        first = own[seed * num_shots : (seed + 1) * num_shots]
        if num_shots < 1 or len(first) < num_shots:
            raise UserError(
                f"protocol.shots_by_name takes images {seed * num_shots} to {(seed + 1) * num_shots - 1} by name, and "
                f"{category} has {len(own)} normal training images; lower protocol.num_shots or seed"
            )
        shots |= set(first)
    return shots


def _rotated(items: Sequence[Item], rotations: int) -> tuple[Item, ...]:
    if rotations < 1:
        raise UserError(f"protocol.rotations must be at least 1 (1: no rotated copies), got {rotations}")
    angles = [360 * i / rotations for i in range(rotations)]
    return tuple(
        item._replace(path=f"{item.path}@{angle:g}", rotation=angle) if angle else item for item in items for angle in angles
    )


def _noisy(dataset, train, validation, noise_ratio: float, keep_in_test: bool, seed: int) -> Split:
    if not 0 < noise_ratio < 1:
        raise UserError(f"protocol.noise_ratio must be in (0, 1), got {noise_ratio}")
    noise = set()
    for number, category in enumerate(dataset.categories):
        pool = sorted((item for item in dataset.test if item.label and item.category == category), key=lambda item: item.path)
        if not pool:
            raise UserError(f"noisy takes anomalous test images, and {category} has none; add some or take another protocol")
        size = sum(item.category == category for item in train)
        count = min(int(noise_ratio * size), int(MOST_NOISE * len(pool)))
        if count == 0:
            raise UserError(
                f"protocol.noise_ratio={noise_ratio} of {size} training images with {len(pool)} anomalous test images moves "
                f"none in {category}; raise protocol.noise_ratio"
            )
        rng = np.random.default_rng((seed, _NOISE, number))
        noise |= {pool[i] for i in rng.permutation(len(pool))[:count]}
    passing = tuple(item._replace(label=0) for item in dataset.test if item in noise)
    test = dataset.test if keep_in_test else tuple(item for item in dataset.test if item not in noise)
    return Split(train + passing, validation, test)


def _supervised(dataset, train, validation, num_anomalies: int, defect: str, seed: int) -> Split:
    # a published supervised split names the labelled anomalies itself
    pool = [item for item in dataset.anomalies or dataset.test if item.label]
    if not pool:
        raise UserError(
            f"supervised learns from anomalous images, and {dataset.name} has none; add some or take another protocol"
        )
    anomalies = [item for item in pool if not defect or item.defect == defect]
    if not anomalies:
        kinds = sorted({item.defect for item in pool})
        raise UserError(f"there is no defect {defect!r} in the images; {did_you_mean(defect, kinds)}")
    key = "protocol.num_anomalies"
    known = _per_category(dataset, anomalies, num_anomalies, (seed, _ANOMALIES), key, "anomalous images")
    gone = known if not defect else {item for item in dataset.test if item.label and item.defect == defect}
    test = tuple(item for item in dataset.test if item not in gone)
    return Split(train + tuple(item for item in anomalies if item in known), validation, test)


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
