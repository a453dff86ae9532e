"""Figures over several runs: forgetting and average accuracy of continual runs, mean and spread over seeds."""

from typing import Any, NamedTuple

import numpy as np

from iadjax.errors import UserError

__all__ = ["Forgetting", "MeanStd", "average_accuracy", "forgetting", "mean_std"]


class Forgetting(NamedTuple):
    """Forgetting after the last task, in both averagings that are published.

    Attributes:
      average_all: sum over the tasks divided by all k tasks, the last of which counts 0 (IM-IAD, Xie et al. 2023).
      average_previous: the same sum divided by the k - 1 earlier tasks (Chaudhry et al. 2018); NaN for one task.
      per_task: `[k]` float64; 0 for the last.
    """

    average_all: float
    average_previous: float
    per_task: np.ndarray


class MeanStd(NamedTuple):
    """Mean and sample standard deviation (divisor n - 1; NaN for one value)."""

    mean: float
    std: float


def forgetting(matrix: Any) -> Forgetting:
    """Forgetting measure of a continual run: FM_j = max over l < k of T[l, j] - T[k, j], for every task j < k.

    Args:
      matrix: `[k, k]`; T[l, j] is the metric of task j after training task l, higher is better. Entries above the diagonal (a
        task before it was trained) may be NaN: they are then left out of the maximum.

    Raises:
      UserError: not square, or NaN on or below the diagonal.
    """
    table = _square(matrix)
    per_task = np.zeros(len(table))
    if len(table) > 1:
        per_task[:-1] = np.nanmax(table[:-1, :-1], axis=0) - table[-1, :-1]
    previous = per_task.sum() / (len(table) - 1) if len(table) > 1 else float("nan")
    return Forgetting(float(per_task.mean()), float(previous), per_task)


def average_accuracy(matrix: Any) -> float:
    """Mean over all k tasks of T[k, j], the metric of every task after the last was trained; `matrix` as in `forgetting`."""
    return float(_square(matrix)[-1].mean())


def mean_std(values: Any) -> MeanStd:
    """Mean and sample standard deviation of one metric over runs, such as seeds.

    Args:
      values: `[n]` numbers, at least one; NaN makes both NaN.

    Raises:
      UserError: not one-dimensional, or empty.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise UserError(f"mean_std needs a list of at least one number, got shape {values.shape}")
    return MeanStd(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan"))


def _square(matrix: Any) -> np.ndarray:
    table = np.asarray(matrix, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise UserError(f"a continual run's matrix must be [tasks, tasks], got {table.shape}")
    if np.isnan(table[np.tril_indices(len(table))]).any():
        raise UserError("a continual run's matrix has NaN on or below its diagonal; test every task once it is trained")
    return table
