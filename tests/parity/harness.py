"""Parity cards: numbers that the authors' code and anomalib give for weights that follow from the tensors' names.

A card is an npz file in `cards/`. Its weights are drawn from a generator that the name of each tensor seeds, so that a file of
some kilobytes stands for a network of millions of weights. `predict` and `update` are the only calls of a detector's
functions: what else a test needs goes through them.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from scipy import ndimage

from iadjax.backbones.backbone import Backbone, plain_features
from iadjax.backbones.weights import position
from iadjax.cpu.dispatch import plain
from iadjax.detector import Batch, Detector, Prediction
from iadjax.detectors import pytorch
from tests.direct import spec_for

OUTPUT, GRADIENT = 1e-4, 1e-3


class Card:
    """One card.

    Attributes:
      arrays: what the file holds, by name.
      about: the description of the case.
      tensors: the state dict, float32, in PyTorch's layout.
    """

    def __init__(self, name: str):
        with np.load(Path(__file__).parent / "cards" / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.about = json.loads(str(self.arrays["about"]))
        affine = json.loads(str(self.arrays.get("affine", "{}")))
        self.tensors = {}
        for key, shape in json.loads(str(self.arrays["names"])):
            stored, (a, b) = self.arrays.get(f"tensor/{key}"), affine.get(key, (1, 0))
            drawn = fill(key, tuple(shape), self.about["salt"]) if stored is None else None
            self.tensors[key] = stored if drawn is None else drawn * np.float32(a) + np.float32(b)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of the card; 8-bit images as float32 in [0, 1]."""
        array = self.arrays[name]
        return array.astype(np.float32) / 255 if array.dtype == np.uint8 and "mask" not in name else array

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The tensors whose names begin with `prefix`, without it."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def without(self, *prefixes: str) -> dict[str, np.ndarray]:
        """The tensors whose names begin with none of `prefixes`."""
        return {key: value for key, value in self.tensors.items() if not key.startswith(prefixes)}

    def check(self, name: str, ours, tolerance: float = OUTPUT) -> None:
        """Compares `out/<name>` of an authors' card, of which every n-th element is kept, with ours `[B, C, h, w]` or `[...]`.

        The sum and the norm of the whole array are compared as well.
        """
        facts, ours = self.about["outputs"][name], np.asarray(ours, np.float64)
        assert list(ours.shape) == facts["shape"], (name, ours.shape, facts["shape"])
        close(ours.ravel()[:: facts["step"]], self.arrays[f"out/{name}"], tolerance, name)
        assert abs(np.linalg.norm(ours) - facts["norm"]) <= tolerance * facts["norm"], name
        assert abs(ours.sum() - facts["sum"]) <= tolerance * np.abs(ours).sum(), name

    def check_gradients(self, detector: str, gradients: Mapping[str, Any], tolerance: float = GRADIENT) -> None:
        """Compares [sum, L2 norm] of every gradient that the card holds with ours, found by the detector's table.

        The error of a sum, whose terms may cancel, is relative to the most that it could be: the norm times the root of their
        number.
        """
        leaves = flatten_dict({"params": gradients})
        table = pytorch.table(detector).TABLE
        names = [name for name in self.arrays if name.startswith("grad/")]
        assert names
        for name in names:
            ours = np.asarray(leaves[position(name.removeprefix("grad/"), table, leaves)], np.float64)
            total, norm = self.arrays[name]
            report(name, abs(np.linalg.norm(ours) - norm) / norm, tolerance)
            report(f"{name} sum", abs(ours.sum() - total) / (norm * ours.size**0.5), tolerance)


def fill(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """The tensor of that name: PyTorch's shape, float32."""
    rng = np.random.default_rng(zlib.crc32((salt + name).encode()))
    if name.endswith("running_var"):
        x = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        x = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        x = name.endswith("weight") + 0.1 * rng.standard_normal(shape)
    else:
        x = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return x.astype(np.float32)


def close(ours, theirs, tolerance: float = OUTPUT, what: str = "") -> None:
    """The largest difference is at most `tolerance` of the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    report(what, np.abs(ours - theirs).max() / np.abs(theirs).max(), tolerance)


def report(what: str, error: float, tolerance: float) -> None:
    """Prints a relative error (`pytest -s`) and fails where it is too large."""
    print(f"{what or 'value'}: {error:.1e}")
    assert error <= tolerance, (what, error, tolerance)


def empty_state(detector: Detector, frozen: Mapping[str, Any], size: int, images: int = 2, validation: int = 0) -> Any:
    """A state of zeros with the right shapes, which costs no compilation: for networks whose weights a test overwrites."""
    shapes = jax.eval_shape(lambda frozen: initial_state(detector, frozen, size, images, validation), frozen)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def initial_state(detector: Detector, frozen: Mapping[str, Any], size: int, images: int = 2, validation: int = 0) -> Any:
    """`Detector.init` for so many square images."""
    spec = spec_for(detector, frozen, images, (size, size, 3), num_validation=validation, batch_size=images)
    return detector.init(jax.random.key(0), frozen, spec)


def batch_of(image: np.ndarray, label=None, **extra) -> Batch:
    """A batch without padded rows."""
    number, zeros = len(image), np.zeros(len(image), np.int32)
    return Batch(
        image=image,
        features=(),
        category=zeros,
        index=np.arange(number, dtype=np.int32),
        extra=extra,
        valid=np.ones(number, bool),
        mask=np.zeros(image.shape[:3], np.uint8),
        label=zeros if label is None else np.asarray(label, np.int32),
    )


def _embedded(detector: Detector, frozen: Mapping[str, Any], batch: Batch) -> Batch:
    """The batch with `Detector.embed` of its images."""
    return batch if detector.embed is None else batch._replace(features=jax.jit(detector.embed)(frozen, batch.image))


def predict(detector: Detector, state: Any, frozen: Mapping[str, Any], image: np.ndarray) -> Prediction:
    """`Detector.predict` of one batch of images, compiled with XLA's own convolutions, which take half as long to compile."""
    with plain():
        batch = _embedded(detector, frozen, batch_of(np.asarray(image)))
        if detector.precompute is not None:
            state = jax.jit(detector.precompute)(state, frozen)
        return jax.jit(detector.predict)(state, frozen, batch._replace(mask=None, label=None))


def update(
    detector: Detector,
    state: Any,
    frozen: Mapping[str, Any],
    batch: Batch,
    phase: int = 0,
    finalize: bool = True,
    double: bool = False,
) -> tuple[Any, dict[str, jax.Array]]:
    """One update of a phase, compiled, and its end: the state and what is logged, with "loss" in phases of training.

    Args:
      detector, state, frozen, batch: what the update is called with.
      phase: its number.
      finalize: whether the phase ends after the update.
      double: compute in float64, as the cards' losses are, where rounding moves gradients by more than the tolerance.
    """
    phase = detector.phases(spec_for(detector, frozen, len(batch.image), batch.image.shape[1:]))[phase]
    # cards in float64 meet constants in float32
    promotion = jax.numpy_dtype_promotion("standard" if double else "strict")
    with plain(), jax.enable_x64(double), promotion:
        if double:
            state, frozen, batch = jax.tree.map(_double, (state, frozen, batch))
        batch = _embedded(detector, frozen, batch)
        key = jax.random.key(0)
        state, info = jax.jit(phase.update)(key, state, frozen, batch)
        return phase.finalize(key, state, frozen) if finalize else state, info


def _double(leaf):
    return jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) else leaf


def gradients(state: Any, beta1: float = 0.9) -> dict[str, Any]:
    """The gradients of the first update, from Adam's first moment: that is (1 - beta1) times them; or from SGD's momentum.

    Weight decay in the gradient and clipping have to be off.
    """

    def is_moment(part):
        return hasattr(part, "mu") or isinstance(part, optax.TraceState)

    parts = [part for part in jax.tree.leaves(state, is_leaf=is_moment) if is_moment(part)]
    beta1 = 0.0 if any(isinstance(part, optax.TraceState) for part in parts) else beta1
    kept = [part.mu if hasattr(part, "mu") else part.trace for part in parts]
    moments = [jax.tree_util.tree_flatten_with_path(each)[0] for each in kept]
    found: dict[str, Any] = {}
    for path, leaf in (pair for each in moments for pair in each):
        *modules, last = (entry.key for entry in path)
        branch = found
        for module in modules:
            branch = branch.setdefault(module, {})
        branch[last] = np.asarray(leaf, np.float64) / (1 - beta1)
    return found


def nchw(x) -> np.ndarray:
    """`[B, h, w, C]` to PyTorch's order."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def mirror_blur(maps, sigma: float = 4.0, truncate: float = 4.0) -> np.ndarray:
    """anomalib's Gaussian of `[B, H, W]`: the border is mirrored without repeating the edge, unlike SciPy's and ours."""
    return ndimage.gaussian_filter(np.asarray(maps, np.float64), (0, sigma, sigma), mode="mirror", truncate=truncate)


def given(levels: Sequence[np.ndarray]) -> tuple[Backbone, dict[str, Any]]:
    """A backbone whose levels "level0" ... are these `[B, h, w, C]` whatever the images are, and its `frozen`.

    For cards that begin at the features.
    """
    names = tuple(f"level{i}" for i in range(len(levels)))
    variables = {name: jnp.asarray(level) for name, level in zip(names, levels, strict=True)}
    features = plain_features(lambda variables, image, layers: tuple(variables[layer] for layer in layers))
    return Backbone("given", names, lambda key, layers: variables, features), {"backbone": variables}
