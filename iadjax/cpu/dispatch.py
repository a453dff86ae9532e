"""Forms of one function for CPUs and for accelerators, chosen when a program is lowered."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

__all__ = ["by_platform", "plain"]

_PLAIN = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """What is traced inside has the forms for accelerators on every platform, for converters that read a program."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def by_platform(*arguments: jax.Array, cpu: Callable, default: Callable) -> Any:
    """One of two forms of the same function of arrays; `default` is for every other platform."""
    return default(*arguments) if _PLAIN.get() else jax.lax.platform_dependent(*arguments, cpu=cpu, default=default)
