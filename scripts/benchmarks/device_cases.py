"""What a stage of `device.py` is: its sizes, the calls of both sides, the work and the tolerance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["ACCELERATOR", "CPU", "SMALL", "Case", "Sizes", "flops", "largest_difference", "precise"]


class Sizes(NamedTuple):
    """How large the stages are; `side` and `vit_side`: of images."""

    side: int
    vit_side: int
    batches: tuple[int, ...]
    train_batch: int
    knn: tuple[int, int, int]
    coreset: tuple[int, int, int]
    maps: int
    aupro: int
    bank: int
    matrix: int
    copied: int


SMALL = Sizes(96, 56, (1, 2), 2, (64, 512, 32), (512, 32, 64), 2, 4, 100, 256, 2**20)
CPU = Sizes(256, 224, (1, 4, 8), 8, (784, 16_384, 1024), (20_000, 1024, 2000), 32, 100, 8000, 2048, 2**28)
ACCELERATOR = Sizes(256, 224, (1, 16, 128), 8, (12_544, 65_536, 1024), (200_000, 1024, 4000), 256, 100, 8000, 8192, 2**31)


class Case(NamedTuple):
    """One measurement.

    Attributes:
      name: of the row.
      ours: one call of iadjax; its outputs are a tree of arrays.
      theirs: `(module, wrap) -> the same call` of scripts/benchmarks/device_torch.py.
      work: of one call, in `unit` ("FLOP" or "B"), counted by `source` ("cost analysis" or "formula").
      ceiling: a key of the measured ceilings.
      tolerance: largest difference, as `difference` has it.
      images: in one call.
      difference: `(our outputs, theirs) -> float`; by default the largest difference over an array's largest value.
      theirs_rounded: like `theirs`, with weights that are rounded before the first call.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[Any, Callable], Callable[[], Any]]
    work: float
    unit: str
    source: str
    ceiling: str
    tolerance: float
    images: int = 1
    difference: Callable[[Any, Any], float] | None = None
    theirs_rounded: Callable[[Any, Callable], Callable[[], Any]] | None = None


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest |a - b| / max |b| of pairs of arrays; infinite where they do not pair or are not finite."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    if any(np.shape(a) != np.shape(b) or not np.isfinite(a).all() for a, b in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def flops(program: Callable, *arguments: Any) -> float:
    """Of the plain form of every operation, which accelerators get; on a CPU some convolutions take fewer."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    # clients of accelerators have no analysis of a program that is not compiled
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(program.trace(*shapes).lower(lowering_platforms=("cuda",)).cost_analysis()["flops"])


def precise() -> float:
    """Tolerance of networks in float32, whose products accelerators round to TF32 or bfloat16 by default."""
    return 1e-3 if jax.default_backend() == "cpu" else 3e-2
