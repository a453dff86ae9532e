"""Times the forms of a convolution in iadjax/nn/convolution.py, alone and with both gradients, beside PyTorch's.

    python scripts/benchmarks/convolution.py [--rounds=3] [--json=results/convolution_cpu.json]

Shapes are those of ResNet-18, Wide ResNet-50-2 and EfficientAD's networks; "rounded" forms may round to bfloat16, see
`convolve`. Rounds alternate between the forms; the fastest round of each counts. `ratio`: XLA's own convolution over the form
that is chosen on this device. The choice was made by this table, on a CPU; elsewhere XLA's own is chosen always.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from timing import fastest

from iadjax import files
from iadjax.cpu.patches import patch_product
from iadjax.cpu.winograd import winograd
from iadjax.experiment import cli, record
from iadjax.nn.convolution import convolve, direct

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds per measurement.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for the figures.")

# batch, side, channels in and out, kernel, stride, padding
SHAPES = (
    (1, 64, 64, 64, 3, 1, 1),
    (1, 32, 128, 128, 3, 1, 1),
    (1, 16, 256, 256, 3, 1, 1),
    (1, 8, 512, 512, 3, 1, 1),
    (8, 64, 64, 64, 3, 1, 1),
    (8, 32, 64, 128, 3, 1, 1),
    (8, 32, 128, 128, 3, 1, 1),
    (8, 16, 256, 256, 3, 1, 1),
    (8, 8, 512, 512, 3, 1, 1),
    (8, 32, 128, 256, 3, 2, 1),
    (8, 16, 256, 512, 3, 2, 1),
    (8, 64, 128, 128, 3, 1, 1),
    (8, 16, 512, 512, 3, 1, 1),
    (1, 126, 128, 256, 4, 1, 0),
    (1, 59, 256, 384, 4, 1, 0),
)


def forms(kernel: int, stride: int, pad: int) -> dict[str, Callable]:
    rounded = {"chosen, rounded": convolve, "xla, rounded": direct}
    found = {"chosen": convolve, "xla": direct, "patch product": patch_product}
    found |= {name: functools.partial(form, rounded=True) for name, form in rounded.items()}
    found = {name: functools.partial(form, stride=stride, pad=pad) for name, form in found.items()}
    return found | ({"winograd": functools.partial(winograd, pad=pad)} if kernel > 1 and stride == 1 else {})


def torch_form(torch: Any, x: np.ndarray, kernel: np.ndarray, stride: int, pad: int, gradients: bool) -> Callable[[], Any]:
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)

    def call():
        if not gradients:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(image, weight, stride=stride, padding=pad)
        leaves = [each.detach().requires_grad_() for each in (image, weight)]
        return torch.autograd.grad((torch.nn.functional.conv2d(*leaves, stride=stride, padding=pad) ** 2).sum(), leaves)

    return call


def main() -> None:
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    rows = []
    for shape in SHAPES:
        batch, side, depth, features, size, stride, pad = shape
        rng = np.random.default_rng(0)
        x = np.maximum(rng.standard_normal((batch, side, side, depth), np.float32), 0)
        kernel = (2 / size**2 / depth) ** 0.5 * rng.standard_normal((size, size, depth, features), np.float32)
        row = {"shape": shape}
        for what in ("forward", "with gradients"):
            sides = {}
            for name, form in forms(size, stride, pad).items():
                program = form if what == "forward" else jax.grad(lambda *xk, form=form: jnp.sum(form(*xk) ** 2), (0, 1))
                call = functools.partial(jax.jit(program), jnp.asarray(x), jnp.asarray(kernel))
                sides[name] = lambda call=call: jax.block_until_ready(call())
                # compiles
                sides[name]()
            if torch:
                sides["pytorch"] = torch_form(torch, x, kernel, stride, pad, what != "forward")
            seconds = fastest(sides, _ROUNDS.value)
            row[what] = {"seconds": seconds, "ratio": seconds["xla"] / seconds["chosen"]}
            text = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items())
            print(f"{shape} {what}, ms: {text}; ratio {row[what]['ratio']:.2f}", flush=True)
        rows.append(row)
    if _JSON.value:
        files.write_json(Path(_JSON.value), {**record.about(), "rows": rows})


if __name__ == "__main__":
    cli.run(main)
