"""Two implementations of one function, for CPUs and for accelerators; the choice is made when a function is lowered."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

__all__ = ["by_platform", "for_cpus", "plain"]

_PLAIN = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Inside, every platform gets the implementation for accelerators. Converters to other formats need that."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def by_platform(*arguments: jax.Array, cpu: Callable, default: Callable) -> Any:
    """Calls `cpu` on CPUs and `default` on every other platform. Both compute the same from `arguments`."""
    return default(*arguments) if _PLAIN.get() else jax.lax.platform_dependent(*arguments, cpu=cpu, default=default)


def for_cpus() -> bool:
    """Whether what is traced is for CPUs, where both forms cannot be traced: the default backend is one, outside `plain`."""
    return not _PLAIN.get() and jax.default_backend() == "cpu"
