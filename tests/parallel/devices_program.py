"""Fits small detectors and saves what they came to; the tests of several devices and processes run it and compare.

python -m tests.parallel.devices_program OUT.npz WORK TREE CASES [COORDINATOR COUNT INDEX]

CASES with commas: "ops", or NAME[@pmap][!STEP], which continues what WORK holds of that name and stops after STEP.
"""

import os
import signal
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import iadjax
from iadjax import detectors, losses, ops
from iadjax.config import base_config
from iadjax.experiment.fit import Stopped
from iadjax.experiment.log import Log
from iadjax.nn.norms import BatchNorm
from iadjax.ops import rows
from iadjax.parallel import distributed, placement
from iadjax.parallel.axis import AXIS, all_sum, replicated
from tests.detectors.test_contract import config_of
from tests.tiny import tiny_networks

# image size and options that make several devices do something else than one: banks that are split, batches that do not divide
CASES = {
    "patchcore": {"data": {"batch_size": 3}, "detector": {"coreset_ratio": 0.5}},
    # room for 4 of 5 images
    "budget": {"data": {"batch_size": 2}, "detector": {"coreset_ratio": 0.3, "bank_bytes": 260 * 4 * (2 * 48 + 10)}},
    "padim": {"data": {"batch_size": 5}},
    "fastflow": {"data": {"batch_size": 3}, "detector": {"flow_steps": 1, "layers": ("layer1",)}},
    # noise and dropout are those of the whole batch
    "uniad": {"data": {"batch_size": 3}},
    "toy": {"data": {"batch_size": 3}},
    "stopped": {"data": {"batch_size": 1}, "detector": {"coreset_ratio": 0.5}},
}


def fitted(case: str, tree: Path, work: Path, parallel: str, stop: int) -> iadjax.Run | None:
    """The run of a case, continued if there is one; None where it stopped after `stop` steps."""
    if case == "toy":
        detectors.MODULES["toy"] = "tests.toy"
        config = base_config("toy", "folder")
        config.data.update({"root": str(tree), "workers": 0})
        config.threshold.holdout = 0.2
    else:
        config = config_of({"budget": "patchcore", "stopped": "patchcore"}.get(case, case), tree)
    config.data.resize = 32
    for section, options in CASES[case].items():
        config[section].update(options)
    config.parallel = parallel
    write = Log.write

    def stopping(self, step, *rest):
        write(self, step, *rest)
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    Log.write = stopping
    try:
        return iadjax.fit(config, work, resume=True)
    except Stopped:
        return None
    finally:
        Log.write = write


def results(case: str, run: iadjax.Run) -> dict[str, np.ndarray]:
    """Scores, maps, and the bank where there is one, as arrays by name."""
    made = list(run.predict_items(run.data.split.test))
    found = {f"{case}/score": np.array([each[1] for each in made]), f"{case}/map": np.stack([each[2] for each in made])}
    if hasattr(run.state, "features"):
        found[f"{case}/bank"] = distributed.fetch(run.state.features)[: int(run.state.rows)]
    return found


def primitives(devices: placement.Devices) -> dict[str, np.ndarray]:
    """What the ops give on random numbers; all of it must be equal."""
    rng = np.random.default_rng(0)
    queries, bank = (rng.standard_normal((size, 24)).astype(np.float32) for size in (1003, 2501))
    integers = rng.integers(0, 3, (120, 3)).astype(np.float32)
    points, index = rng.standard_normal((8192, 5)).astype(np.float32), rng.permutation(8192)[:5000].astype(np.int32)
    found = {}
    with placement.use(devices):
        for k in (1, 9):
            # the small budget takes the ring
            for budget in (ops.BYTE_BUDGET, 2000):
                search = jax.jit(lambda q, b, k=k, budget=budget: ops.nearest_neighbors(q, b, k, byte_budget=budget))
                found[f"ops/distances {k} {budget}"], found[f"ops/indices {k} {budget}"] = search(queries, bank)
        found["ops/coreset"] = ops.k_center_greedy(points[:3000], 100, 17, size=2900)
        found["ops/ties"] = ops.k_center_greedy(integers, 120, 5, candidates=2)
        place, number = distributed.process()
        split = placement.put_rows(devices, np.split(points, number)[place])
        found["ops/taken"] = distributed.fetch(ops.take_rows(split, index))
        starts = np.array([8100, 0, 1000], np.int32)
        found["ops/written"] = distributed.fetch(jax.jit(ops.write_rows)(split, points[:300].reshape(3, 100, 5), starts))
        found["ops/rows"] = ops.rows_at(split, index[:30].reshape(5, 6))
        assert np.array_equal(found["ops/taken"][:5000], points[index])
    return {name: np.asarray(value) for name, value in found.items()}


class Normalized(nn.Module):
    """A layer whose statistics are those of the whole batch."""

    @nn.compact
    def __call__(self, x, valid):
        return BatchNorm(name="norm")(x, valid)


def normalization(devices: placement.Devices) -> dict[str, np.ndarray]:
    """Output and running statistics of BatchNorm on a batch of 13 images that is padded to 16."""
    x = np.random.default_rng(2).standard_normal((16, 4, 4, 3)).astype(np.float32)
    valid = np.arange(16) < 13
    variables = Normalized().init(jax.random.key(0), x[:1], valid[:1])
    split = placement.put_rows(devices, (x, valid)) if distributed.process()[1] == 1 else (x, valid)
    output, changed = jax.jit(lambda *batch: Normalized().apply(variables, *batch, mutable="batch_stats"))(*split)
    statistics = changed["batch_stats"]["norm"]

    def gradient(weight, variables, x, valid):
        """Through the statistics of the batch: of what stands before the norm."""

        def loss(weight):
            y, _ = Normalized().apply(variables, jnp.tanh(x * weight), valid, mutable="batch_stats")
            return losses.mean(jnp.mean(y**3, axis=(1, 2, 3)), valid)

        return all_sum(jax.grad(loss)(weight))

    if devices.count == 8:
        # replicas, each with its two rows
        def replica(variables, x, valid):
            with replicated(8):
                return Normalized().apply(variables, x, valid, mutable="batch_stats")

        rows = x.reshape(8, 2, *x.shape[1:]), valid.reshape(8, 2)
        parts, moved = jax.pmap(replica, AXIS, in_axes=(None, 0, 0), out_axes=(0, None))(variables, *rows)
        np.testing.assert_allclose(np.asarray(parts).reshape(x.shape)[:13], np.asarray(output)[:13], rtol=1e-5, atol=1e-5)

        def replica_gradient(*given):
            with replicated(8):
                return gradient(*given)

        weight = jnp.array([0.5, 1.0, 2.0])
        truth = jax.jit(gradient)(weight, variables, x, valid)
        found = jax.pmap(replica_gradient, AXIS, in_axes=(None, None, 0, 0), out_axes=None)(weight, variables, *rows)
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
        assert np.abs(truth).min() > 1e-3
        for name, value in moved["batch_stats"]["norm"].items():
            np.testing.assert_allclose(value, statistics[name], rtol=1e-5, atol=1e-6)
    return {"norm/output": np.asarray(output)[:13], "norm/mean": statistics["mean"], "norm/var": statistics["var"]}


def gradient_in_shard_map(devices: placement.Devices) -> dict[str, np.ndarray]:
    """The mean gradient the way this code takes it inside `shard_map`: of the mean loss, not the mean of gradients."""
    from jax.sharding import PartitionSpec as P

    x = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    weight = np.ones(3, np.float32)

    def loss(weight, x):
        return ((x @ weight) ** 2).mean()

    if devices.mesh is None:
        return {"gradient": np.asarray(jax.grad(loss)(weight, x))}

    def local(weight, x):
        return jax.grad(lambda w: jax.lax.pmean(loss(w, x), AXIS))(weight)

    split = (P(), P(AXIS))
    mapped = jax.jit(jax.shard_map(local, mesh=devices.mesh, in_specs=split, out_specs=P()))
    return {"gradient": np.asarray(mapped(weight, x))}


def main(out: str, work: str, tree: str, cases: str, *where: str) -> None:
    if where:
        distributed.start(where[0], int(where[1]), int(where[2]))
    found = {}
    # banks this small would be on every device
    rows._SMALL = 100
    for case in cases.split(","):
        if case == "ops":
            devices = placement.all_devices()
            found |= primitives(devices) | gradient_in_shard_map(devices) | normalization(devices)
            continue
        case, _, stop = case.partition("!")
        name, _, parallel = case.partition("@")
        run = fitted(name, Path(tree), Path(work) / case, parallel or "jit", int(stop or 0))
        if run is not None:
            found |= {f"{parallel}{key}": value for key, value in results(name, run).items()}
    if distributed.is_main():
        np.savez(out, **found)


if __name__ == "__main__":
    with tiny_networks():
        main(*sys.argv[1:])
