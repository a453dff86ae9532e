"""Times training steps of CFLOW-AD and CS-Flow beside plain PyTorch's, in one run, on given features.

    python scripts/benchmarks/flows.py --json=results/flows_cpu.json     # ten minutes on two cores
    python scripts/benchmarks/flows.py --cases=cflow --rounds=1

Needs torch. The features are those of the published networks in shape: ResNet-18's levels for CFLOW-AD with 8 couplings,
EfficientNet-B5's three scales for CS-Flow with 4 couplings of 1024 channels, both of images of 256 px. So a step is what the
feature cache leaves. Weights, features and threads are the same on both sides. First small flows take three steps on both
sides, whose losses are compared. `ratio`: PyTorch's seconds over ours; rounds alternate, and the fastest round of each counts.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from timing import beside_torch

from iadjax import files
from iadjax.backbones.backbone import Backbone, plain_features
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.detectors.distribution.cflow import cflow
from iadjax.detectors.distribution.csflow import csflow
from iadjax.errors import UserError
from iadjax.experiment import cli, record
from iadjax.nn.flow import position_code

_CASES = flags.DEFINE_list("cases", ["cflow", "csflow"], "Which of cflow and csflow.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each side; the fastest one counts.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

CONDITION, CLAMP, EPOCHS = 128, {"cflow": 1.9, "csflow": 3.0}, 1000
# [B, h, w, C] of each level, and the options of the detector
SHAPES = {
    "cflow": ([(4, 32, 32, 128), (4, 16, 16, 256), (4, 8, 8, 512)], {"coupling_blocks": 8}),
    "csflow": ([(16, 8, 8, 304), (16, 4, 4, 304), (16, 2, 2, 304)], {"coupling_blocks": 4, "hidden": 1024}),
}
SMALL = {
    "cflow": ([(2, 4, 4, 8), (2, 2, 2, 6)], {"coupling_blocks": 2}),
    "csflow": ([(2, 4, 4, 6), (2, 2, 2, 6), (2, 1, 1, 6)], {"coupling_blocks": 2, "hidden": 5}),
}


class Ours:
    """The compiled step of one detector on random features.

    Attributes:
      features: `[B, h, w, C]` of each level.
      state: as the driver has it, with couplings that are not the identity.
    """

    def __init__(self, name: str, shapes, options: dict[str, Any]):
        rng = np.random.default_rng(0)
        self.features = tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        layers = tuple(f"level{i}" for i in range(len(shapes)))
        backbone = Backbone("given", layers, lambda key, layers: {}, plain_features(lambda *_: self.features))
        if name == "cflow":
            detector = cflow(backbone, layers=layers, condition_dimension=CONDITION, warmup=0.0, epochs=EPOCHS, **options)
        else:
            detector = csflow(backbone, layer=layers[0], scales=len(shapes), epochs=EPOCHS, **options)
            detector = detector._replace(embed=lambda frozen, image: self.features)
        self.frozen = frozen = {"backbone": {}}
        spec = DataSpec(len(self.features[0]), (256, 256, 3), ("a",), features=embed_shapes(detector, frozen, (256, 256, 3)))
        state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
        self.state = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf + 0.5 if "gamma" in str(path[-1]) and "variables" in str(path) else leaf, state
        )
        self.update = jax.jit(detector.phases(spec)[0].update, donate_argnums=1)

    def step(self) -> float:
        rows = len(self.features[0])
        zeros = np.zeros(rows, np.int32)
        batch = Batch(None, self.features, zeros, zeros, {}, np.ones(rows, bool), None, zeros)
        self.state, info = self.update(jax.random.key(2), self.state, self.frozen, batch)
        jax.block_until_ready(self.state)
        return float(info["loss"])


def _plain(tree):
    """Nested NumPy arrays with PyTorch's layouts of kernels."""
    if hasattr(tree, "items"):
        return {name: _plain(branch) for name, branch in tree.items()}
    array = np.asarray(tree)
    return {2: array.T, 4: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array}.get(array.ndim, array)


def theirs(name: str, ours: Ours, couplings: int):
    """PyTorch's step with the weights of ours."""
    module = importlib.import_module("flows_torch")
    if name == "csflow":
        variables = ours.state.variables
        weights = [_plain(variables["params"][f"module_list_{2 * k + 1}"]) for k in range(couplings)]
        constants = [variables["constants"][f"module_list_{2 * k}"] for k in range(couplings)]
        orders = [[np.asarray(each[f"permutation_{i}"]) for i in range(len(ours.features))] for each in constants]
        features = [level.transpose(0, 3, 1, 2) for level in ours.features]
        return module.csflow(weights, orders, features, CLAMP[name], 2e-4, 1e-5, 1.0)
    weights, rotations, vectors, codes = [], [], [], []
    for number, (decoder, level) in enumerate(zip(ours.state.decoders, ours.features, strict=True)):
        names = [f"decoders_{number}_{k}" for k in range(couplings)]
        weights.append([_plain(decoder.variables["params"][each]) for each in names])
        rotations.append([np.asarray(decoder.variables["constants"][each]["rotation"]) for each in names])
        rows, height, width, depth = level.shape
        vectors.append(level.reshape(-1, depth))
        codes.append(np.tile(position_code(CONDITION, height, width).reshape(-1, CONDITION), (rows, 1)))
    # the rate of the first meta epoch, which a run of this length never leaves
    return module.cflow(weights, rotations, vectors, codes, 256, CLAMP[name], lambda step: 2e-4)


def check(name: str) -> float:
    """The largest difference of the losses of three steps of a small flow."""
    shapes, options = SMALL[name]
    ours = Ours(name, shapes, options)
    step = theirs(name, ours, options["coupling_blocks"])
    losses = [(ours.step(), step()) for _ in range(3)]
    return max(abs(a - b) / abs(b) for a, b in losses)


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("this benchmark compares with PyTorch, which is not installed; pip install torch")
    results = {}
    for name in _CASES.value:
        if name not in SHAPES:
            raise UserError(f"there is no case {name!r}; --cases takes {', '.join(SHAPES)}")
        difference = check(name)
        print(f"{name}: losses of small flows differ by {difference:.1e} at most", flush=True)
        if difference > 1e-3:
            raise RuntimeError("the two sides do not compute the same")
        shapes, options = SHAPES[name]
        ours = Ours(name, shapes, options)
        found = beside_torch(name, ours.step, theirs(name, ours, options["coupling_blocks"]), _ROUNDS.value)
        results[name] = {"shapes": shapes, **options, **found, "difference": difference}
    if _JSON.value:
        files.write_json(Path(_JSON.value), {"about": record.about(), "rounds": _ROUNDS.value, "results": results})


if __name__ == "__main__":
    cli.run(main)
