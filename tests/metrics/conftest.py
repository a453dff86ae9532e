"""Metrics have one form for NumPy and JAX, which promotes as NumPy does."""

import jax
import pytest


@pytest.fixture(autouse=True)
def numpy_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
