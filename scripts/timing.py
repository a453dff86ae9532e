"""The timing loop of the benchmark scripts."""

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["fastest"]

# a round repeats a short call for so many seconds
ROUND_SECONDS = 0.1


def fastest(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of a call in the fastest round of each side."""
    repeats, best = {}, dict.fromkeys(sides, float("inf"))
    for name, side in sides.items():
        began = time.perf_counter()
        side()
        repeats[name] = max(1, int(ROUND_SECONDS / (time.perf_counter() - began)))
    for _ in range(rounds):
        for name, side in sides.items():
            if repeats[name] > 1:
                # threads of the other side may still be spinning
                side()
            began = time.perf_counter()
            for _ in range(repeats[name]):
                side()
            best[name] = min(best[name], (time.perf_counter() - began) / repeats[name])
    return best
