"""Two implementations of one function, for CPUs and for accelerators; the choice is made when a function is lowered."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

__all__ = ["by_platform", "loops", "plain"]

# None outside of `plain`, or its `loops`
_PLAIN: contextvars.ContextVar[bool | None] = contextvars.ContextVar("plain", default=None)


@contextlib.contextmanager
def plain(*, loops: bool = False) -> Iterator[None]:
    """Inside, every platform gets the implementation for accelerators. Converters to other formats need that.

    Args:
      loops: whether repeated layers are a loop, as on accelerators; converters need not know loops.
    """
    token = _PLAIN.set(loops)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def by_platform(*arguments: jax.Array, cpu: Callable, default: Callable) -> Any:
    """Calls `cpu` on CPUs and `default` on every other platform. Both compute the same from `arguments`."""
    return default(*arguments) if _PLAIN.get() is not None else jax.lax.platform_dependent(*arguments, cpu=cpu, default=default)


def loops() -> bool:
    """Whether repeated layers are traced as a loop, of which one step is compiled: outside `plain`, where the default backend
    is no CPU. A compiler for TPUs takes seconds for every convolution. A CPU would run the products of a loop on one core."""
    wanted = _PLAIN.get()
    return jax.default_backend() != "cpu" if wanted is None else wanted
