"""Times Dinomaly's training step beside plain PyTorch's, in one run, with and without the feature cache.

    python scripts/benchmarks/dinomaly.py --json=results/dinomaly_cpu.json     # ten minutes on two cores
    python scripts/benchmarks/dinomaly.py --rounds=1 --batch=1

Needs torch. DINOv2 ViT-B/14 with registers, images of 392 px, the same random weights, images and threads on both sides. A step
of ours without the cache embeds its images and updates; one with it takes the features from memory. PyTorch's embeds, too, with
scaled_dot_product_attention. First a small network takes steps without dropout on both sides, whose losses and weights are
compared. `ratio`: PyTorch's seconds over ours; rounds alternate, and the fastest round of each side counts.
"""

import importlib
import importlib.util
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict
from timing import fastest

from iadjax import backbones, files
from iadjax.backbones.vit import SPECS
from iadjax.backbones.weights import torch_name
from iadjax.cpu.prepared import precompute
from iadjax.data.images import unit_range
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.detectors.families.schedules import warm_cosine
from iadjax.detectors.transformer.dinomaly import dinomaly
from iadjax.errors import UserError
from iadjax.experiment import cli, record
from iadjax.experiment.features import FeatureCache

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each side; the fastest one counts.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 4, "Images in a batch.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

FIRST, LAST, STEPS = 3, 10, 1000


def state_dict(variables) -> dict[str, np.ndarray]:
    """Our variables as tensors with PyTorch's names and layouts."""
    tensors = {}
    for path, leaf in flatten_dict(variables).items():
        array = np.asarray(leaf)
        if path[-1] == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        tensors[torch_name(path).replace("patch_embed_proj", "patch_embed.proj")] = array
    return tensors


class Ours:
    """The compiled functions of one detector with random weights.

    Attributes:
      pixels: `[B, H, W, 3]` uint8.
      state, frozen: as the driver has them.
    """

    def __init__(self, name: str, side: int, batch: int, **options):
        self.backbone = backbones.backbone(name)
        layers = tuple(f"block{i}" for i in range(FIRST, LAST + 1))
        detector = dinomaly(self.backbone, steps=STEPS, **options)
        # weights as large as trained ones, so that no block is nearly the identity
        variables = jax.jit(lambda key: self.backbone.init(key, layers))(jax.random.key(0))
        self.frozen = {"backbone": jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, variables)}
        self.ready = precompute(self.frozen, "float32")
        shape = (side, side, 3)
        features = embed_shapes(detector, self.frozen, shape)
        spec = DataSpec(4 * batch, shape, ("a",), steps_per_epoch=4, batch_size=batch, features=features)
        self.state = jax.jit(lambda key, frozen: detector.init(key, frozen, spec))(jax.random.key(1), self.frozen)
        (phase,) = detector.phases(spec)
        self.update = jax.jit(phase.update, donate_argnums=1)
        self.compiled = jax.jit(lambda frozen, image: detector.embed(frozen, unit_range(image)))
        self.pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)

    def embed(self):
        return self.compiled(self.ready, self.pixels)

    def step(self, features) -> float:
        zeros = np.zeros(len(self.pixels), np.int32)
        batch = Batch(None, features, zeros, zeros, {}, np.ones(len(zeros), bool), None, zeros)
        self.state, info = self.update(jax.random.key(2), self.state, self.ready, batch)
        jax.block_until_ready(self.state)
        return float(info["loss"])


def theirs(ours: Ours, dropout: float, fraction: float):
    """PyTorch's step with the weights of ours, and the tensors that it trains."""
    rate = warm_cosine(2e-3, 2e-4, STEPS, 100)
    rates = [float(rate(step)) for step in range(200)]
    module = importlib.import_module("dinomaly_torch")
    tensors = state_dict(ours.frozen["backbone"]), state_dict(ours.state.variables)
    image = ours.pixels.astype(np.float32) / 255
    spec = SPECS[ours.backbone.name]
    return module.training(*tensors, image, spec, FIRST, LAST, dropout, lambda step: rates[step % 200], fraction)


def check() -> float:
    """The largest difference of the losses, and of the change of all weights by its norm, after three steps of a small network.

    The rate of the first step is zero.
    """
    ours = Ours("dinov2_vits14_reg_offset", 56, 2, dropout=0.0, easy_steps=0)
    before = state_dict(ours.state.variables)
    step, w = theirs(ours, 0.0, 0.9)
    losses = [(ours.step(ours.embed()), step()) for _ in range(3)]
    after = state_dict(ours.state.variables)
    moved = {name: tensor.detach().numpy() - before[name] for name, tensor in w.items()}
    size, difference = (
        np.sqrt(sum(np.sum(each**2, dtype=np.float64) for each in parts))
        for parts in (moved.values(), [after[name] - before[name] - each for name, each in moved.items()])
    )
    return max(float(difference / size), *(abs(a - b) / abs(b) for a, b in losses))


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("this benchmark compares with PyTorch, which is not installed; pip install torch")
    difference = check()
    print(f"small network: losses and steps differ by {difference:.1e} at most", flush=True)
    if difference > 1e-3:
        raise RuntimeError("the two sides do not compute the same")
    ours = Ours("dinov2_vitb14_reg_offset", 392, _BATCH.value, easy_steps=0)
    step, _ = theirs(ours, 0.2, 0.9)
    one = jax.device_get(ours.embed())
    cache = FeatureCache(jax.tree.map(lambda x: np.concatenate([x, x, x[:1]]), one))
    index = np.random.default_rng(1).permutation(2 * _BATCH.value)[: _BATCH.value]
    sides = {
        "embed": lambda: jax.block_until_ready(ours.embed()),
        "off": lambda: ours.step(ours.embed()),
        "on": lambda: ours.step(cache.at(index)),
        "pytorch": step,
    }
    seconds = fastest(sides, _ROUNDS.value)
    ratios = {name: round(seconds["pytorch"] / seconds[name], 3) for name in ("off", "on")}
    for name, each in seconds.items():
        print(f"{name:>8} {each:8.3f} s" + (f"   ratio {ratios[name]:.2f}" if name in ratios else ""), flush=True)
    if _JSON.value:
        found = {name: round(each, 3) for name, each in seconds.items()}
        row = {"backbone": ours.backbone.name, "side": 392, "batch": _BATCH.value, "rounds": _ROUNDS.value}
        files.write_json(
            Path(_JSON.value), {"about": record.about(), **row, "seconds": found, "ratio": ratios, "difference": difference}
        )


if __name__ == "__main__":
    cli.run(main)
