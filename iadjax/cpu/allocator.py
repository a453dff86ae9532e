"""Settings of the C library's memory allocator for large arrays of short life."""

import ctypes
import os
import platform
import re

__all__ = ["keep_freed"]

# parameters of glibc's mallopt(3)
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# never trimmed: the largest other value is 2 GiB, and CS-Flow's step takes more
_NEVER = -1


def keep_freed() -> bool:
    """Lets this process keep the memory that it frees, for its next arrays.

    On CPUs, XLA allocates temporary memory at every call. glibc maps requests above 32 MiB from the system and gives them back
    at once. So every page of 4 KiB causes a page fault in every call. For a ResNet-18 at batch 8 that takes a quarter of the
    time (docs/dev/speed_history.md). The process gives its memory back at its end. The setting holds for the whole process.
    Only scripts make it, before other threads start.

    Returns:
      Whether it was done. It is not done without glibc, or if GLIBC_TUNABLES or MALLOC_... is set in the environment.
    """
    chosen = [name for name, value in os.environ.items() if value and re.fullmatch("GLIBC_TUNABLES|MALLOC_.*", name)]
    if platform.libc_ver()[0] != "glibc" or chosen:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # one arena, because further ones give their heaps back whatever the threshold is
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _NEVER), mallopt(_ARENA_MAX, 1)])
