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

found, bounds = streaming.compute(count(empty, maps, areas, regions))
exact = metrics.pixel_metrics(maps, masks)
for key in exact:
    assert abs(found[key] - exact[key]) <= bounds[key] + 1e-6, (key, found[key], exact[key], bounds[key])
print("equal")
"""


def test_eight_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-2000:]
