"""Freed memory is kept for the next call, except where a user set the allocator."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from iadjax.cpu import allocator

print(allocator.keep_freed())
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    # pages of 4 KiB, to be counted
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0"} | settings
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_the_memory_of_a_second_call_is_that_of_the_first():
    done, first, second, third = run(GLIBC_TUNABLES="")
    assert done == "True" and int(first) > 1000
    assert int(second) < 100 and int(third) < 100


def test_settings_of_the_user_stay():
    assert run(MALLOC_TRIM_THRESHOLD_="100000")[0] == "False"
