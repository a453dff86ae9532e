"""Every config key has a line."""

import pytest

from iadjax import detectors
from iadjax.config import KEYS, base_config, describe
from iadjax.config.keys import option_lines


@pytest.mark.parametrize("name", sorted(detectors.MODULES))
def test_no_key_without_a_line(name):
    for dataset in ("synthetic", "folder"):
        found = list(describe(base_config(name, dataset)))
        assert len(found) > 40
        for key, _, line in found:
            assert len(line) > 5 and line[-1] != ".", key
    assert set(option_lines(name)) >= set(detectors.options(name))


def test_no_line_without_a_key():
    known = {key for name in detectors.MODULES for key, _, _ in describe(base_config(name, "folder"))}
    assert set(KEYS) <= known


def test_a_line_is_that_of_the_docstring():
    lines = option_lines("patchcore")
    assert lines["coreset_ratio"] == "fraction of the patches that the coreset M_C keeps (Algorithm 1), in (0, 1]"
    assert lines["pretrain_dimension"] == lines["target_dimension"] == '(pretrain_dimension, target_dimension) of "unfold" only'
