"""`run.json`: the circumstances of a figure: fingerprint, versions, device, seed, seconds per stage, peak memory."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from iadjax import config as configs
from iadjax import files
from iadjax.errors import UserError
from iadjax.parallel import distributed

__all__ = ["Clock", "about", "begin", "compilations", "data_hashes", "processor", "update", "versions"]

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "optax", "orbax-checkpoint", "grain", "pillow", "ml-collections")
# what a run that goes on keeps of its record
_KEPT = ("started", "wall_seconds", "compilations", "peak_memory_bytes")
# stages of which a run that goes on adds the seconds to those before
_ADDED = ("prepare", "fit", "threshold")
# beginnings of the names of a run's own compiled functions
_OWN = ("init", "update", "predict")


class Clock:
    """Wall seconds of named stages, seconds for which devices waited for images, and counts of compilations.

    Attributes:
      asked: arrays that the devices were last asked to compute, for `waiting`.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.asked: Any = None
        self.wait = self.busy = 0.0
        self.programs: dict[str, int] = {}
        self.compiled = {"seconds": 0.0, "from_cache": 0}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to the stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def waiting(self, batches: Iterable) -> Iterator:
        """Yields the batches, and sums the time for which the devices waited for them.

        Devices do not wait while `asked` is not ready. If it becomes ready while a batch is made, all of that time counts. So
        the sum is an upper bound.
        """
        batches, mark = iter(batches), time.perf_counter()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            now = time.perf_counter()
            if all(leaf.is_ready() for leaf in jax.tree.leaves(self.asked)):
                self.wait += now - began
            self.busy, mark = self.busy + now - mark, now
            if batch is None:
                return
            yield batch


@contextlib.contextmanager
def compilations(clock: Clock) -> Iterator[None]:
    """Counts the compilations in the block by name, and those that came from the persistent cache."""

    def duration(event: str, seconds: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            name = about.get("fun_name", "").removeprefix("jit(").removesuffix(")")
            clock.programs[name] = clock.programs.get(name, 0) + 1
            clock.compiled["seconds"] += seconds

    def happened(event: str, **about: str) -> None:
        del about
        clock.compiled["from_cache"] += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(duration)
    jax.monitoring.register_event_listener(happened)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)
        jax.monitoring.unregister_event_listener(happened)


def begin(workdir: Path, config: dict, model: "configs.Model", built: "configs.Data", hashes: Mapping[str, str]) -> None:
    """Writes `run.json` with everything that is known before fitting; `hashes`: of `data_hashes`."""
    parts = {
        "config": configs.fingerprint(configs.fit_keys(config)),
        "code": _code_hash(),
        **hashes,
        "weights": {name: each["hash"] for name, each in model.weights.items()},
    }
    split = built.split
    file = workdir / "run.json"
    # of a run that goes on
    before = files.read_json(file, "give another --workdir") if file.is_file() else {}
    files.write_json(
        file,
        {
            "fingerprint": configs.fingerprint(parts),
            "fingerprint_parts": parts,
            "weights": model.weights,
            "seed": config["seed"],
            "protocol": config["protocol"],
            "images": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            "files_left_out": len(built.dataset.left_out),
            "validation_paths": [item.path for item in split.validation],
            "drawn_paths": _drawn(config, built),
            "versions": versions(),
            "device": {"kind": jax.devices()[0].device_kind, "platform": jax.default_backend(), "count": jax.device_count()},
            "processes": jax.process_count(),
            "parallel": config["parallel"],
            "cpu_count": os.cpu_count(),
            "processor": processor(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **{key: before[key] for key in _KEPT if key in before},
        },
    )


def update(workdir: Path, clock: Clock) -> None:
    """Adds the seconds and counts of the clock, and the peak memory so far."""
    if not distributed.is_main():
        return
    file = workdir / "run.json"
    value = files.read_json(file, "remove it to begin a new record")
    before = value.get("wall_seconds", {})
    seconds = {key: each + (before.get(key, 0) if key in _ADDED else 0) for key, each in clock.seconds.items()}
    value["wall_seconds"] = {**before, **{key: round(each, 3) for key, each in seconds.items()}}
    if clock.busy:
        value["waiting_for_data"] = round(clock.wait / clock.busy, 4)
    if clock.programs:
        # the others are single operations outside compiled functions
        own = {name: number for name, number in sorted(clock.programs.items()) if name.split("_")[0] in _OWN}
        stored = value.get("compilations", {"number": 0, "seconds": 0.0, "from_cache": 0, "programs": {}})
        value["compilations"] = {
            "number": stored["number"] + sum(clock.programs.values()),
            "seconds": round(stored["seconds"] + clock.compiled["seconds"], 3),
            "from_cache": stored["from_cache"] + clock.compiled["from_cache"],
            "programs": {key: stored["programs"].get(key, 0) + own.get(key, 0) for key in sorted({*stored["programs"], *own})},
        }
    value["peak_memory_bytes"] = max(value.get("peak_memory_bytes", 0), _peak_memory())
    device = jax.local_devices()[0].memory_stats()
    if device and "peak_bytes_in_use" in device:
        value["peak_device_memory_bytes"] = device["peak_bytes_in_use"]
    files.write_json(file, value)


def _drawn(config: dict, built: "configs.Data") -> list[str]:
    """Training images that the protocol chose: the shots, the noise, the labelled anomalies."""
    known = set() if config["protocol"]["name"] == "few_shot" else set(built.dataset.train)
    chosen = config["protocol"]["name"] in ("few_shot", "noisy", "supervised")
    return [item.path for item in built.split.train if item not in known] if chosen else []


def about() -> dict[str, Any]:
    """Date, machine and versions, as they stand beside measured figures."""
    today = datetime.date.today()
    python = ".".join(platform.python_version_tuple()[:2])
    machine = f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, JAX {jax.__version__}, Python {python}, {today:%B %Y}"
    return {"date": today.isoformat(), "machine": machine, "processor": processor(), "versions": versions()}


def processor() -> str:
    """The model of the CPU, if the system reports it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what computes: packages, iadjax itself and Python."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**found, "iadjax": _version(), "python": platform.python_version()}


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
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def data_hashes(built: "configs.Data") -> dict[str, str]:
    """Hashes over the paths and contents of images, masks and points; over the paths alone where a source makes them.

    Returns:
      {"training_data": of what a run is fitted on and its held-out images, "data": of these and the test images}.
    """
    items = {item.path: item for part in built.split for item in part}

    def contents(path: str) -> bytes:
        item = items[path]
        found = [file for file in (item.file, *(item.masks or (item.mask,)), *item.xyz) if file is not None]
        return _path_bytes(path) + b"".join(_file_hash(file) for file in found)

    with ThreadPoolExecutor() as pool:
        parts = dict(zip(items, pool.map(contents, items), strict=True))

    def together(paths: Iterable[str]) -> str:
        digest = hashlib.sha256(built.dataset.name.encode())
        for path in sorted(paths):
            digest.update(parts[path])
        return digest.hexdigest()

    fitted = {item.path for part in (built.split.train, built.split.validation) for item in part}
    return {"training_data": together(fitted), "data": together(items)}


def _path_bytes(path: str) -> bytes:
    # names that are not UTF-8
    return path.encode(errors="surrogateescape")


def _file_hash(file: Any) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror or error}); repair or remove it") from error
