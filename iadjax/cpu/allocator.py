"""The memory allocator of the C library, set for large arrays that come and go."""

import ctypes
import os
import platform
import re

__all__ = ["keep_freed"]

# parameters of glibc's mallopt(3)
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_KEPT = 2**30


def keep_freed() -> bool:
    """Lets this process keep up to 1 GiB of the memory that it frees.

    XLA takes its temporary memory on CPUs anew at every call. More than 32 MiB glibc maps from the system and gives back
    at once, so that every page of 4 KiB is a page fault of every call: a quarter of the time of a ResNet-18 at batch 8
    (docs/speed.md). It concerns the whole process, so that only scripts do it, before any other thread asks for memory.

    Returns:
      whether it was done: only with glibc, and not over settings in the environment (GLIBC_TUNABLES, MALLOC_...).
    """
    chosen = [name for name, value in os.environ.items() if value and re.fullmatch("GLIBC_TUNABLES|MALLOC_.*", name)]
    if platform.libc_ver()[0] != "glibc" or chosen:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # the heaps of further arenas are given back whatever the threshold is, so that there is one
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _KEPT), mallopt(_ARENA_MAX, 1)])
