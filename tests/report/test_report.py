"""The report's gallery: what a reader wants to see first."""

import numpy as np

from iadjax.report.page import _mistakes, _worst_first


def order(scores, labels, threshold):
    scores, labels = np.array(scores), np.array(labels)
    return _worst_first(scores, labels, _mistakes(scores, labels), threshold).tolist()


def test_wrongly_ranked_images_come_first_and_the_worst_before_all():
    # the third image is anomalous and below both normal ones, the first above one anomalous image
    assert order([0.6, 0.2, 0.1, 0.9], [0, 0, 1, 1], None) == [2, 0, 1, 3]


def test_a_clean_ranking_shows_what_the_threshold_misses_first():
    # nothing is wrong in the ranking, but the threshold misses the second image
    assert order([0.1, 0.4, 0.9, 0.2], [0, 1, 1, 0], 0.5)[0] == 1
    assert order([0.1, 0.4, 0.9, 0.2], [0, 1, 1, 0], 0.15)[0] == 3
