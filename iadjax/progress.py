"""Progress of long work on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["say", "say_once", "track"]

_SECONDS_BETWEEN_LINES = 10.0
_said: set[str] = set()
_lock = threading.Lock()


def say(message: str) -> None:
    """One line on standard error, from the first of several processes."""
    if jax.process_index() == 0:
        print(message, file=sys.stderr, flush=True)


def say_once(topic: str, message: str) -> None:
    """The first message of a topic in this process; several threads may say it."""
    with _lock:
        if topic not in _said:
            _said.add(topic)
            say(message)


@contextlib.contextmanager
def track(name: str, total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `report(done, total)`, to be called as the work goes on."""
    console = Console(stderr=True, quiet=jax.process_index() > 0)
    first: list[tuple[int, float]] = []

    def rate(done: int) -> float:
        # a run that resumes does not begin at zero
        now = time.monotonic()
        if not first:
            first.append((done, now))
        return (done - first[0][0]) / max(now - first[0][1], 1e-9)

    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(name, total=total, rate="")
            yield lambda done, total: bar.update(task, completed=done, total=total, rate=f"{rate(done):.1f} {unit}s/s")
        return

    last, estimated = [time.monotonic()], [False]

    def report(done: int, total: int) -> None:
        now, speed = time.monotonic(), rate(done)
        # slow work says what it takes as soon as that is known; the first report comes after compilation
        slow = not estimated[0] and 0 < speed < 1
        if slow or now - last[0] >= _SECONDS_BETWEEN_LINES:
            last[0], estimated[0] = now, True
            left = f"{(total - done) / speed:.0f} s left" if speed else "no estimate yet"
            pace = f"{1 / speed:.1f} s each" if 0 < speed < 1 else f"{speed:.1f}/s"
            say(f"{name}: {done}/{total} {unit}s, {pace}, {left}")

    yield report
