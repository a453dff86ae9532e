"""The timing loop of the benchmark scripts."""

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["beside_torch", "fastest"]

# a round repeats a short call for so many seconds
ROUND_SECONDS = 0.2
# a longer call is not disturbed by what the other side left behind
LONG_SECONDS = 2.0


def fastest(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of a call in the fastest round of each side."""
    first, best = {}, dict.fromkeys(sides, float("inf"))
    for name, side in sides.items():
        began = time.perf_counter()
        side()
        first[name] = time.perf_counter() - began
    for _ in range(rounds):
        for name, side in sides.items():
            if first[name] < LONG_SECONDS:
                # threads of the other side may still be spinning, and its memory lie where this side's did
                side()
            repeats = max(1, int(ROUND_SECONDS / first[name]))
            began = time.perf_counter()
            for _ in range(repeats):
                side()
            best[name] = min(best[name], (time.perf_counter() - began) / repeats)
    return best


def beside_torch(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Prints and gives the seconds of both sides, and the ratio, PyTorch's over ours."""
    seconds = fastest({"ours": ours, "pytorch": theirs}, rounds)
    ratio = seconds["pytorch"] / seconds["ours"]
    print(f"{name}: {seconds['ours']:.3f} s, PyTorch {seconds['pytorch']:.3f} s, ratio {ratio:.2f}", flush=True)
    return {"seconds": {side: round(each, 4) for side, each in seconds.items()}, "ratio": round(ratio, 3)}
