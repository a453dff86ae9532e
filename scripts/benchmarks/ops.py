"""Times the ops against the plain forms, PyTorch and scikit-learn, side by side in one run; prints ratios.

    python scripts/benchmarks/ops.py [--rounds=5] [--json=FILE]

Coreset: 20,000 points to 2,000 at 128, 384 and 1,536 dimensions; against the loop of single picks in jitted JAX and in
PyTorch (both in the form that reads the points once per pick). k-NN: 784 queries x 1,024 against 16,384. Rounds alternate
between the sides; the fastest round of each counts. PyTorch and scikit-learn run where they are installed.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from iadjax import ops
from iadjax.experiment import record

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds per measurement.")
_JSON = flags.DEFINE_string("json", None, "File to write the results to.")


def feature_like(size: int, depth: int) -> np.ndarray:
    """Clusters with a decaying spectrum behind a rectifier, as patch features are."""
    rng = np.random.default_rng(1)
    spectrum = 1 / np.sqrt(1 + np.arange(depth))
    centers = rng.standard_normal((60, depth)) * spectrum
    points = centers[rng.integers(0, 60, size)] + 0.6 * rng.standard_normal((size, depth)) * spectrum
    return np.maximum(points @ np.linalg.qr(rng.standard_normal((depth, depth)))[0], 0).astype(np.float32)


@jax.jit
def single_picks(points):
    """The same greedy picks one at a time: one matrix-vector product each."""
    squares = jnp.sum(points**2, axis=1)

    def pick(i, carry):
        distance, picks = carry
        best = jnp.argmax(distance)
        point = points[best]
        distance = jnp.minimum(distance, squares + point @ point - 2 * points @ point).at[best].set(-1)
        return distance, picks.at[i].set(best)

    start = (squares + squares[0] - 2 * points @ points[0]).at[0].set(-1)
    return jax.lax.fori_loop(1, 2000, pick, (start, jnp.zeros(2000, jnp.int32)))[1]


def torch_picks(torch, points):
    squares = (points**2).sum(1)
    distance = squares + squares[0] - 2 * points @ points[0]
    distance[0] = -1
    picks = [0]
    for _ in range(1999):
        best = int(torch.argmax(distance))
        point = points[best]
        distance = torch.minimum(distance, squares + point @ point - 2 * (points @ point))
        distance[best] = -1
        picks.append(best)
    return picks


def race(sides: dict) -> dict[str, float]:
    """Seconds of the fastest round of each side, after one round that compiles."""
    for side in sides.values():
        side()
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(_ROUNDS.value):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def row(title: str, seconds: dict[str, float]) -> dict:
    ours = seconds["iadjax"]
    ratios = {name: value / ours for name, value in seconds.items() if name != "iadjax"}
    text = ", ".join(f"{name} {seconds[name]:.3f} s = {ratio:.2f}x" for name, ratio in ratios.items())
    print(f"{title}: iadjax {ours:.3f} s; {text}", flush=True)
    return {"seconds": seconds, "ratio_to_iadjax": ratios}


def main(_) -> None:
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    neighbors = importlib.import_module("sklearn.neighbors") if importlib.util.find_spec("sklearn") else None
    results = {}
    rng = np.random.default_rng(0)
    for depth in (128, 384, 1536):
        for kind, points in (
            ("feature-like", feature_like(20_000, depth)),
            ("Gaussian", rng.standard_normal((20_000, depth), np.float32)),
        ):
            ours = jnp.asarray(points)
            sides = {
                "iadjax": lambda ours=ours: np.asarray(ops.k_center_greedy(ours, 2000)),
                "JAX single picks": lambda ours=ours: np.asarray(single_picks(ours)),
            }
            if torch:
                sides["PyTorch single picks"] = lambda points=points: torch_picks(torch, torch.from_numpy(points))
            same = float(np.mean(sides["iadjax"]() == sides["JAX single picks"]()))
            title = f"coreset 20,000 x {depth} to 2,000, {kind}"
            results[title] = row(title, race(sides)) | {"same_picks_as_single": same}
            print(f"  same picks in the same order as the float32 loop: {same:.4f}")

    queries, bank = (rng.standard_normal((size, 1024), np.float32) for size in (784, 16_384))
    for k in (1, 9):
        search = jax.jit(lambda q, b, k=k: ops.nearest_neighbors(q, b, k))
        ours = jnp.asarray(queries), jnp.asarray(bank)
        sides = {"iadjax": lambda search=search, ours=ours: jax.block_until_ready(search(*ours))}
        if torch:
            tensors = torch.from_numpy(queries), torch.from_numpy(bank)
            if k == 1:
                sides["torch.cdist + min"] = lambda tensors=tensors: torch.cdist(*tensors).min(1)
            else:
                sides["torch.cdist + topk"] = lambda tensors=tensors, k=k: torch.cdist(*tensors).topk(k, largest=False)
        if neighbors:
            index = neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank)
            sides["scikit-learn brute"] = lambda index=index: index.kneighbors(queries)
        title = f"k-NN 784 x 1,024 against 16,384, k = {k}"
        memory = search.lower(*ours).compile().memory_analysis()
        results[title] = row(title, race(sides)) | {
            "temporary_bytes": memory.temp_size_in_bytes,
            "byte_budget": ops.BYTE_BUDGET,
        }
        print(f"  temporary memory {memory.temp_size_in_bytes / 2**20:.0f} MiB, budget {ops.BYTE_BUDGET / 2**20:.0f} MiB")

    if _JSON.value:
        packages = [name for name in ("jax", "jaxlib", "numpy", "torch", "scikit-learn") if _version(name)]
        about = {
            "date": datetime.date.today().isoformat(),
            "device": jax.devices()[0].device_kind,
            "cpu_count": os.cpu_count(),
            "processor": record.processor(),
            "versions": {name: _version(name) for name in packages},
            "rounds": _ROUNDS.value,
        }
        Path(_JSON.value).parent.mkdir(parents=True, exist_ok=True)
        Path(_JSON.value).write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    app.run(main)
