"""`run.json`: what a number was made with: fingerprint, versions, device, seed, seconds per stage, peak memory."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from iadjax import config as configs
from iadjax import files

__all__ = ["Clock", "begin", "update"]

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "optax", "orbax-checkpoint", "grain", "pillow", "ml-collections")


class Clock:
    """Wall seconds of named stages."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to the stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def begin(workdir: Path, config: dict, model: "configs.Model", built: "configs.Data") -> None:
    """Writes `run.json` with everything that is known before fitting."""
    parts = {
        "config": configs.fingerprint(configs.fit_keys(config)),
        "code": _code_hash(),
        "data": _data_hash(built),
        "weights": model.weights["hash"],
    }
    split = built.split
    files.write_json(
        workdir / "run.json",
        {
            "fingerprint": configs.fingerprint(parts),
            "fingerprint_parts": parts,
            "weights": model.weights,
            "seed": config["seed"],
            "protocol": config["protocol"],
            "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            "validation_paths": [item.path for item in split.validation],
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
            | {"iadjax": _version(), "python": platform.python_version()},
            "device": {"kind": jax.devices()[0].device_kind, "platform": jax.default_backend(), "count": jax.device_count()},
            "cpu_count": os.cpu_count(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def update(workdir: Path, clock: Clock) -> None:
    """Adds the seconds of the clock's stages and the peak memory so far."""
    file = workdir / "run.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    value["wall_seconds"] = {**value.get("wall_seconds", {}), **{key: round(each, 3) for key, each in clock.seconds.items()}}
    value["peak_memory_bytes"] = max(value.get("peak_memory_bytes", 0), _peak_memory())
    device = jax.local_devices()[0].memory_stats()
    if device and "peak_bytes_in_use" in device:
        value["peak_device_memory_bytes"] = device["peak_bytes_in_use"]
    files.write_json(file, value)


def _version() -> str:
    try:
        return importlib.metadata.version("iadjax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _peak_memory() -> int:
    # Linux counts in KiB, macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _code_hash() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _data_hash(built: "configs.Data") -> str:
    """Hash over the paths and contents of every image, mask and points; of the paths alone where a source makes them."""
    items = {item.path: item for part in built.split for item in part}

    def contents(path: str) -> bytes:
        item = items[path]
        found = [file for file in (item.file, *(item.masks or (item.mask,)), *item.xyz) if file is not None]
        return path.encode() + b"".join(hashlib.sha256(file.read_bytes()).digest() for file in found)

    digest = hashlib.sha256(built.dataset.name.encode())
    with ThreadPoolExecutor() as pool:
        for part in pool.map(contents, sorted(items)):
            digest.update(part)
    return digest.hexdigest()
