"""The figures are compared with XLA's own convolutions: the fast forms take longer to compile, and tests/nn/test_convolution.py
holds them to these."""

import pytest

from iadjax.cpu.dispatch import plain


@pytest.fixture(autouse=True)
def plain_convolutions():
    with plain():
        yield
