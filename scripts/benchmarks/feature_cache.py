"""What the feature cache gives: the frozen network's part of a training step, and the step with and without the cache.

    python scripts/benchmarks/feature_cache.py --json=results/feature_cache_cpu.json     # ten minutes on two cores
    python scripts/benchmarks/feature_cache.py --cases=simplenet --rounds=5 [--small]

Weights and images are random: they change no time. A step without the cache embeds its images and updates; one with it takes
the features from memory and updates. Both call the same compiled functions, in turns, in one process. The cache can save what
the embedding takes at most, which makes the step 1 / (1 - fraction) times as fast.

The last lines are about memory: the peak of two whole fits, in processes of their own, and the bytes of the features.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from timing import fastest

from iadjax import backbones, detectors, files
from iadjax.cpu.prepared import precompute
from iadjax.data.images import unit_range
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.experiment import cli, record
from iadjax.experiment.features import FeatureCache

_CASES = flags.DEFINE_list("cases", [], "Which cases; all by default.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds of each side; the fastest one counts.")
_SMALL = flags.DEFINE_bool("small", False, "Images of 64 pixels, to see that it runs.")
_MEMORY = flags.DEFINE_bool("memory", True, "Whether the memory of whole fits is measured.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

LEVELS = ("layer1", "layer2", "layer3")


class Case(NamedTuple):
    """One detector at its usual size.

    Attributes:
      detector: its name.
      backbone: that of the frozen network.
      side: of the images, in pixels.
      options: keywords of the detector.
      batch: images in a batch.
    """

    detector: str
    backbone: str
    side: int
    options: dict
    batch: int = 8


CASES = {
    "simplenet": Case("simplenet", "resnet18", 256, {}),
    "fastflow": Case("fastflow", "resnet18", 256, {"layers": LEVELS}),
    "rd4ad": Case("rd4ad", "resnet18", 256, {"layers": LEVELS}),
    "uniad": Case("uniad", "resnet18", 224, {"layers": LEVELS}),
    "simplenet_wide": Case("simplenet", "wide_resnet50_2", 288, {}),
    "stpm": Case("stpm", "resnet18", 256, {"layers": LEVELS}),
    "cfa": Case("cfa", "resnet18", 256, {"layers": LEVELS}),
    "cflow": Case("cflow", "resnet18", 256, {"layers": LEVELS}),
    "csflow": Case("csflow", "efficientnet_b5_symmetric", 256, {"layer": "stage6"}),
}


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Milliseconds of a step with and without the cache and of the embedding, and what follows from them."""
    backbone = backbones.backbone(case.backbone)
    detector = detectors.factory(case.detector)(backbone, **case.options)
    layers = case.options.get("layers", (case.options["layer"],) if "layer" in case.options else ("layer2", "layer3"))
    frozen = {"backbone": jax.jit(lambda key: backbone.init(key, layers))(jax.random.key(0))}
    ready = precompute(frozen, "float32")
    shape = (case.side, case.side, 3)
    features = embed_shapes(detector, frozen, shape)
    spec = DataSpec(4 * case.batch, shape, ("a",), steps_per_epoch=4, batch_size=case.batch, features=features)
    state = jax.jit(lambda key, frozen: detector.init(key, frozen, spec))(jax.random.key(1), frozen)
    *before, phase = detector.phases(spec)
    update = jax.jit(phase.update, donate_argnums=1)
    embed = jax.jit(lambda frozen, image: detector.embed(frozen, unit_range(image)))
    pixels = np.random.default_rng(0).integers(0, 256, (case.batch, *shape), np.uint8)
    one = jax.device_get(embed(ready, pixels))
    # four batches of features, so that a gather is one
    cache = FeatureCache(jax.tree.map(lambda x: np.concatenate([x, x, x, x, x[:1]]), one))
    index = np.random.default_rng(1).permutation(4 * case.batch)[: case.batch].astype(np.int32)
    zeros, key, held = np.zeros(case.batch, np.int32), jax.random.key(2), [state]

    seen = unit_range(pixels) if phase.needs_image else None

    def batch_of(features):
        return Batch(seen, features, zeros, index, {}, np.ones(case.batch, bool), None, zeros)

    # such as the centres of CFA
    for each in before:
        held[0], _ = jax.jit(each.update)(key, held[0], ready, batch_of(one))
        held[0] = each.finalize(key, held[0], ready)

    def step(features):
        batch = batch_of(features)
        held[0], info = update(key, held[0], ready, batch)
        jax.block_until_ready((held[0], info))

    sides = {
        "embed": lambda: jax.block_until_ready(embed(ready, pixels)),
        "off": lambda: step(embed(ready, pixels)),
        "on": lambda: step(cache.at(index)),
    }
    seconds = fastest(sides, rounds)
    fraction = seconds["embed"] / seconds["off"]
    gain = seconds["off"] / seconds["on"]
    return {
        **{f"{name}_ms": round(1000 * each, 2) for name, each in seconds.items()},
        "fraction": round(fraction, 3),
        "allowed_gain": round(1 / (1 - fraction), 3),
        "gain": round(gain, 3),
        "of_allowed": round(gain * (1 - fraction), 3),
        "features_mib": round(sum(leaf.nbytes for leaf in jax.tree.leaves(one)) / case.batch / 2**20, 3),
    }


_FIT = """
import sys
import iadjax
from iadjax.config import base_config

config = base_config("fastflow", "synthetic")
config.data.update({"category": "wood", "resize": 256, "batch_size": 8, "feature_cache_bytes": int(sys.argv[2])})
config.backbone.update({"name": "resnet18", "weights": "random"})
config.detector.update({"flow_steps": 1, "epochs": 2})
config.evaluate.pixel = False
iadjax.fit(config, sys.argv[1])
"""


def memory() -> dict[str, float]:
    """Peak memory of a fit of 54 images of 256 pixels without and with the cache, in MiB."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, budget in (("off", 0), ("on", 2**30)):
            run = Path(folder) / name
            subprocess.run([sys.executable, "-c", _FIT, str(run), str(budget)], check=True, stderr=subprocess.DEVNULL)
            peaks[name] = json.loads((run / "run.json").read_text())["peak_memory_bytes"] / 2**20
    features = 55 * 4 * sum(side * side * depth for side, depth in ((64, 64), (32, 128), (16, 256))) / 2**20
    return {"peak_off_mib": round(peaks["off"]), "peak_on_mib": round(peaks["on"]), "features_mib": round(features)}


def main() -> None:
    found = {}
    print(f"{'case':>16} {'embed ms':>9} {'off ms':>9} {'on ms':>9} {'fraction':>9} {'allowed':>8} {'gain':>6} {'of it':>6}")
    for name in _CASES.value or CASES:
        case = CASES[name]._replace(side=64) if _SMALL.value else CASES[name]
        row = found[name] = measure(case, _ROUNDS.value)
        print(
            f"{name:>16} {row['embed_ms']:9.2f} {row['off_ms']:9.2f} {row['on_ms']:9.2f} {row['fraction']:9.3f} "
            f"{row['allowed_gain']:8.3f} {row['gain']:6.3f} {row['of_allowed']:6.3f}",
            flush=True,
        )
    held = memory() if _MEMORY.value else {}
    if held:
        print(f"peak memory without {held['peak_off_mib']} MiB, with {held['peak_on_mib']}; features {held['features_mib']}")
    if _JSON.value:
        files.write_json(Path(_JSON.value), {"about": record.about(), "cases": found, "memory": held})


if __name__ == "__main__":
    cli.run(main)
