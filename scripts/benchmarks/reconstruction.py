"""Times training steps of reconstruction's networks, and DDIM's sampling, beside plain PyTorch's, in one run.

    python scripts/benchmarks/reconstruction.py --json=results/reconstruction_cpu.json     # ten minutes on two cores
    python scripts/benchmarks/reconstruction.py --cases=ganomaly --rounds=1

Needs torch. DRAEM at full width on images of 128 px; the U-Net of RIAD (64 channels, 128 px, three sets of cells, squared
error); GANomaly (64 features, 64 px), both networks; the U-Net of ADM (64 channels, 64 px); ten steps of DDIM with the latter.
Weights, images and threads are the same on both sides. First small networks take two steps on both sides, whose losses are
compared. Later losses drift apart: of a gradient that is rounding alone, Adam makes a whole step. `ratio`: PyTorch's seconds
over ours; rounds alternate, and the fastest round of each counts.
"""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from device_networks import torch_tensors
from timing import beside_torch

from iadjax import files, losses
from iadjax.detector import Batch, DataSpec
from iadjax.detectors.autoencoder.draem import draem
from iadjax.detectors.autoencoder.riad import InpaintingUNet, inpainted
from iadjax.detectors.families.gradient import init_trained, train_step
from iadjax.detectors.gan.ganomaly import ganomaly
from iadjax.errors import UserError
from iadjax.experiment import cli, record
from iadjax.nn.adm import AdmUNet, default_multipliers
from iadjax.nn.diffusion import ddim_coefficients, ddim_step, noise_schedule, respaced

_CASES = flags.DEFINE_list("cases", [], "Which of draem, riad, ganomaly, adm and ddim; all by default.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each side; the fastest one counts.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

RATE, SETS, DEPTH, STEPS = 1e-4, 3, 5, 10
# of the case, and of the check before it
FULL = {
    "draem": {"batch": 4, "side": 128, "width": 128},
    "riad": {"batch": 4, "side": 128, "width": 64},
    "ganomaly": {"batch": 32, "side": 64, "width": 64},
    "adm": {"batch": 4, "side": 64, "width": 64},
    "ddim": {"batch": 1, "side": 64, "width": 64},
}
SMALL = {name: {**options, "batch": 2, "side": 32, "width": 8} for name, options in FULL.items()}
LEAVES = {"kernel": "weight", "transposed_kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def tensors_of(variables: Any) -> dict[str, np.ndarray]:
    """Variables by Flax's names, in PyTorch's layouts."""
    return torch_tensors(variables, lambda path: ".".join([*path[1:-1], LEAVES.get(path[-1], path[-1])]))


def about_zero(variables: Any) -> Any:
    """Weights that begin at zero get small numbers, so that every layer takes part."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape, np.float32), variables)


def batch_of(image, extra) -> Batch:
    zeros = np.zeros(len(image), np.int32)
    return Batch(image, (), zeros, zeros, extra, np.ones(len(image), bool), None, zeros)


def steps(update: Callable, state: Any, *arguments) -> Callable[[], float]:
    """A call of a compiled `(state, *arguments) -> (state, loss)` that keeps its state."""
    program, held = jax.jit(update, donate_argnums=0), [state]

    def call():
        held[0], loss = program(held[0], *arguments)
        jax.block_until_ready(held[0])
        return float(loss)

    return call


def gradient_steps(objective: Callable, variables: Any, *arguments) -> Callable[[], float]:
    """Steps of Adam; `objective(variables, *arguments)` gives the loss and the changed collections."""
    optimizer = optax.adam(RATE)

    def update(state, *arguments):
        def loss(variables):
            value, changed = objective(variables, *arguments)
            return value, (changed, {})

        state, info = train_step(state, loss, optimizer)
        return state, info["loss"]

    return steps(update, init_trained(variables, optimizer), *arguments)


def draem_case(torch_forms, batch: int, side: int, width: int):
    rng = np.random.default_rng(0)
    original, augmented = (rng.random((batch, side, side, 3), np.float32) for _ in range(2))
    mask = (rng.random((batch, side, side)) < 0.1).astype(np.uint8)
    detector = draem(width=width, segment_width=max(4, width // 2), learning_rate=RATE)
    spec = DataSpec(batch, (side, side, 3), ("a",))
    state = jax.jit(lambda key: detector.init(key, {}, spec))(jax.random.key(0))
    theirs = torch_forms.draem(tensors_of(state.variables), original, augmented, mask, RATE)
    (phase,) = detector.phases(spec)

    def update(state, batch):
        state, info = phase.update(jax.random.key(0), state, {}, batch)
        return state, info["loss"]

    extra = {"original": original, "augmented": augmented, "mask": mask}
    return steps(update, state, batch_of(original, extra)), theirs


def riad_case(torch_forms, batch: int, side: int, width: int):
    rng = np.random.default_rng(0)
    image, network = rng.random((batch, side, side, 3), np.float32), InpaintingUNet(width, DEPTH)
    cells = np.kron(rng.integers(0, SETS, (batch, side // 8, side // 8)), np.ones((8, 8), np.int64))
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    theirs = torch_forms.riad(tensors_of(variables), image, cells, SETS, DEPTH, RATE)

    def objective(variables, image, cells):
        x, valid = 2 * image - 1, jnp.ones((len(image), SETS), bool)
        restored, changed = inpainted(lambda x: network.apply(variables, x, valid, mutable="batch_stats"), x, cells, SETS)
        return jnp.mean((restored - x) ** 2), changed

    return gradient_steps(objective, variables, image, cells), theirs


def ganomaly_case(torch_forms, batch: int, side: int, width: int):
    image = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
    detector, spec = ganomaly(width=width), DataSpec(batch, (side, side, 3), ("a",))
    state = jax.jit(lambda key: detector.init(key, {}, spec))(jax.random.key(0))
    tensors = [tensors_of(each.variables) for each in state]
    theirs = torch_forms.ganomaly(*tensors, image, 2e-4, 0.5)
    (phase,) = detector.phases(spec)

    def update(state, batch):
        state, info = phase.update(jax.random.key(0), state, {}, batch)
        return state, info["loss"] + info["loss_discriminator"]

    return steps(update, state, batch_of(image, {})), theirs


def _adm(side: int, width: int):
    """The network, its variables, and the options of PyTorch's form."""
    network = AdmUNet(width)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)), jnp.zeros(1, jnp.int32))
    names = {"blocks": network.blocks, "attention": network.attention, "multipliers": default_multipliers(side)}
    return network, about_zero(variables), {"width": width, **names}


def adm_case(torch_forms, batch: int, side: int, width: int):
    rng = np.random.default_rng(0)
    x, noise = (rng.standard_normal((batch, side, side, 3)).astype(np.float32) for _ in range(2))
    t, (network, variables, options) = rng.integers(0, 1000, batch).astype(np.int32), _adm(side, width)
    theirs = torch_forms.adm(tensors_of(variables), x, t, noise, RATE, **options)

    def objective(variables, x, t, noise):
        return jnp.mean(losses.mse(network.apply(variables, x, t, True), noise)), {}

    return gradient_steps(objective, variables, x, t, noise), theirs


def ddim_case(torch_forms, batch: int, side: int, width: int):
    x = np.random.default_rng(0).standard_normal((batch, side, side, 3)).astype(np.float32)
    network, variables, options = _adm(side, width)
    times = respaced(1000, STEPS)[::-1]
    left = np.append(noise_schedule(1000).alpha_bar[times], 1.0)
    coefficients = ddim_coefficients(left[:-1], left[1:])
    theirs = torch_forms.ddim(tensors_of(variables), x, times, coefficients[:, :2], **options)

    @jax.jit
    def sample(variables, x):
        rows, at = jnp.asarray(coefficients, x.dtype), jnp.asarray(times)

        def step(i, x):
            return ddim_step(rows[i], x, network.apply(variables, x, jnp.full(len(x), at[i])))

        return jnp.mean(jax.lax.fori_loop(0, STEPS, step, x) ** 2)

    return lambda: float(sample(variables, x)), theirs


CASES = {"draem": draem_case, "riad": riad_case, "ganomaly": ganomaly_case, "adm": adm_case, "ddim": ddim_case}


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("this benchmark compares with PyTorch, which is not installed; pip install torch")
    unknown = sorted(set(_CASES.value) - set(CASES))
    if unknown:
        raise UserError(f"there is no case {', '.join(unknown)}; --cases takes {', '.join(CASES)}")
    torch_forms, results = importlib.import_module("reconstruction_torch"), {}
    for name in _CASES.value or CASES:
        make = CASES[name]
        ours, theirs = make(torch_forms, **SMALL[name])
        pairs = [(ours(), theirs()) for _ in range(2)]
        difference = max(abs(a - b) / abs(b) for a, b in pairs)
        print(f"{name}: losses of small networks differ by {difference:.1e} at most", flush=True)
        if difference > 1e-3:
            raise RuntimeError(f"the two sides do not compute the same: {pairs}")
        ours, theirs = make(torch_forms, **FULL[name])
        found = beside_torch(name, ours, theirs, _ROUNDS.value)
        results[name] = {**FULL[name], **found, "difference": difference}
    if _JSON.value:
        files.write_json(Path(_JSON.value), {"about": record.about(), "rounds": _ROUNDS.value, "results": results})


if __name__ == "__main__":
    cli.run(main)
