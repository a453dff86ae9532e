"""Streaming states of eight devices add up to the state of one; in a process of its own, since devices are made at start."""

import os
import subprocess
import sys

_PROGRAM = """
import functools
import jax, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from iadjax import metrics
from iadjax.metrics import streaming

assert jax.device_count() == 8
rng = np.random.default_rng(0)
maps = rng.standard_normal((16, 24, 24)).astype(np.float32)
masks = np.zeros((16, 24, 24), bool)
masks[::2, 5:11, 7:12] = True
maps += masks
areas, regions = zip(*(streaming.component_areas(mask) for mask in masks))
areas, regions = np.stack(areas), np.array(regions)
empty = jax.tree.map(jax.numpy.asarray, streaming.init(pilot=maps))
mesh = Mesh(np.array(jax.devices()), ("data",))

@jax.jit
@functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P("data"), P("data")), out_specs=P(), check_vma=False)
def count(state, maps, areas, regions):
    state = streaming.accumulate(state, maps, areas, regions.sum())
    return state._replace(counts=jax.lax.psum(state.counts, "data"))

state = count(empty, maps, areas, regions)
found, bounds = streaming.compute(state)
exact = metrics.pixel_metrics(maps, masks)
for key in exact:
    assert abs(found[key] - exact[key]) <= bounds[key] + 1e-6, (key, found[key], exact[key], bounds[key])

figures = {
    "iou": (streaming.iou_max(state), metrics.iou_max(maps, masks)),
    "aupimo": (streaming.aupimo(state, (1e-3, 1e-1)), np.nanmean(metrics.aupimo(maps, masks, (1e-3, 1e-1)))),
    "dice": (streaming.dice(state, 0.5), metrics.dice(maps, masks, 0.5)),
    "f1": (streaming.precision_recall_f1(state, 0.5).f1, metrics.precision_recall_f1(maps, masks, 0.5).f1),
}

# one image per device: structural, logical and good ones in turn
kinds = ["structural", "good", "logical", "good"] * 4
defects = [[metrics.Defect(mask, 9.5)] if mask.any() else [] for mask in masks]
host = streaming.init_spro(pilot=maps)
parts = []
for kind in ("structural", "logical", "good"):
    some = [i for i in range(16) if kinds[i] == kind]
    marked = masks[some][:, None] if kind != "good" else np.zeros((len(some), 0, 24, 24), bool)
    mesh_of_kind = Mesh(np.array(jax.devices()[: len(some)]), ("data",))

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh_of_kind, in_specs=(P(), P("data"), P("data"), P("data")), out_specs=P(),
        check_vma=False)
    def count_kind(state, maps, free, marked):
        saturations = np.full(marked.shape[1], 9.5, np.float32)
        state = streaming.accumulate_spro(state, maps[0], free[0], marked[0], saturations, kind)
        return state._replace(counts=jax.lax.psum(state.counts, "data"))

    parts.append(count_kind(jax.tree.map(jax.numpy.asarray, host), maps[some], ~masks[some], marked))
spro = streaming.au_spro(streaming.merge(parts))
for key, value in metrics.loco_au_spro(list(maps), defects, kinds).items():
    figures[key] = spro[key], value
for key, ((value, bound), exact) in figures.items():
    assert abs(value - exact) <= bound + 1e-12, (key, value, exact, bound)
    assert bound < 1e-4, (key, bound)
print("equal")
"""


def test_eight_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-2000:]
