"""Forgetting, average accuracy and spread, on paper."""

import numpy as np
import pytest

from iadjax import metrics
from iadjax.errors import UserError

NAN = float("nan")


def test_on_paper():
    matrix = [[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.6, 0.9, 1.0]]
    found = metrics.forgetting(matrix)
    # task 0 fell from .9 to .6; task 1 rose from .8 to .9; the last has nothing to forget
    np.testing.assert_allclose(found.per_task, [0.3, -0.1, 0], atol=1e-12)
    assert found.average_previous == pytest.approx((0.3 - 0.1) / 2)
    assert found.average_all == pytest.approx((0.3 - 0.1) / 3)
    assert metrics.average_accuracy(matrix) == pytest.approx((0.6 + 0.9 + 1.0) / 3)


def test_a_full_matrix_counts_what_was_known_before_training():
    # task 1 was better before it was trained
    assert metrics.forgetting([[0.5, 0.9], [0.5, 0.4]]).per_task[1] == 0
    found = metrics.forgetting([[0.5, 0.9, 0], [0.5, 0.6, 0], [0.5, 0.4, 1]])
    np.testing.assert_allclose(found.per_task, [0, 0.5, 0])


def test_one_task():
    found = metrics.forgetting([[0.9]])
    assert found.average_all == 0 and np.isnan(found.average_previous)


def test_mean_std():
    mean, std = metrics.mean_std([1.0, 2.0, 3.0])
    assert (mean, std) == (2, 1)
    assert np.isnan(metrics.mean_std([1.0]).std)


def test_bad_input():
    for bad in ([[1.0, 2.0]], [1.0], np.zeros((0, 0))):
        with pytest.raises(UserError, match=r"\[tasks, tasks\]"):
            metrics.forgetting(bad)
    with pytest.raises(UserError, match="below its diagonal"):
        metrics.average_accuracy([[1.0, 1.0], [NAN, 1.0]])
    with pytest.raises(UserError, match="at least one number"):
        metrics.mean_std([])
