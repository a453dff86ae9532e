"""The figures are compared with XLA's own convolutions."""

import pytest


@pytest.fixture(autouse=True)
def fast_to_compile(plain_convolutions):
    yield
