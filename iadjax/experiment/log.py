"""The log of a run: one JSON object per step in `log.jsonl`, and the same scalars for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax

__all__ = ["Log"]

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
        self._losses: dict[str, list[float]] = {}
        if not active:
            return
        if self._file.is_file():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [(line, values) for line in lines if (values := json.loads(line))["step"] <= step]
            self._file.write_text("".join(line for line, _ in kept), encoding="utf-8")
            for _, values in kept:
                self._keep_loss(values["phase"], values)
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
                self._keep_loss(phase, scalars)
                for key, value in scalars.items():
                    self._board.add_scalar(f"{phase}/{key}", value, int(step))
        self._board.flush()
        self._pending = []

    def losses(self, phase: str) -> list[float]:
        """The losses of all steps of a phase, also before a stop; empty where `info` has no "loss" or the log is not active."""
        self.flush()
        return self._losses.get(phase, [])

    def _keep_loss(self, phase: str, scalars: Mapping[str, float]) -> None:
        if "loss" in scalars:
            self._losses.setdefault(phase, []).append(scalars["loss"])
