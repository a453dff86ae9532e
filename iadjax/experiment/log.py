"""The log of a run: one JSON object per step in `log.jsonl`, and the same scalars for TensorBoard."""

import json
from pathlib import Path

import jax

__all__ = ["Log", "read_losses"]

_FLUSH_EVERY = 50


class Log:
    """Collects the `info` of updates, and fetches it from the device in groups, so that steps do not wait.

    A resumed run drops the lines after the checkpoint's step, because it writes them again. Of several processes, one has an
    active log.
    """

    def __init__(self, workdir: Path, step: int, active: bool = True):
        self._file = workdir / "log.jsonl"
        self._pending = []
        self._active = active
        if not active:
            return
        if self._file.is_file():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            self._file.write_text("".join(line for line in lines if json.loads(line)["step"] <= step), encoding="utf-8")
        # here, because it imports PyTorch where that is installed: two seconds, which only training pays
        from tensorboardX import SummaryWriter

        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        self.flush()
        if self._active:
            self._board.close()

    def write(self, step: int, phase: str, epoch: int, info: dict[str, jax.Array]) -> None:
        """Adds one step."""
        if not self._active:
            return
        self._pending.append((step, phase, epoch, info))
        if len(self._pending) >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes pending steps to disk."""
        if not self._active:
            return
        with self._file.open("a", encoding="utf-8") as file:
            for step, phase, epoch, info in jax.device_get(self._pending):
                scalars = {key: float(value) for key, value in info.items()}
                file.write(json.dumps({"step": int(step), "phase": phase, "epoch": int(epoch), **scalars}) + "\n")
                for key, value in scalars.items():
                    self._board.add_scalar(f"{phase}/{key}", value, int(step))
        self._board.flush()
        self._pending = []

    def losses(self, phase: str) -> list[float]:
        """The losses of all steps of a phase, also before a stop; empty where `info` has no "loss" or the log is not active."""
        self.flush()
        return read_losses(self._file).get(phase, []) if self._active else []


def read_losses(file: Path) -> dict[str, list[float]]:
    """The losses of every phase that has one, from a `log.jsonl`."""
    found: dict[str, list[float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        if "loss" in step:
            found.setdefault(step["phase"], []).append(step["loss"])
    return found
