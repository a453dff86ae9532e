"""A fitted detector as one file that needs none of its configs: StableHLO by `jax.export`, or ONNX.

The program takes images `[B, H, W, 3]` float32 in [0, 1] of one size and gives raw scores `[B]` and maps `[B, H, W]`. The
state and the frozen weights are constants in it: in fitting they are arguments, here the file has to hold them. Thresholds,
score statistics and the transform are in a JSON file beside it, so that they can be changed without another export.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import files
from iadjax.detector import Batch
from iadjax.errors import UserError, did_you_mean
from iadjax.experiment.run import Run
from iadjax.export.exported import Exported
from iadjax.export.formats import FORMATS, LARGEST, PLATFORMS, program_of, require, to_onnx

__all__ = ["TOLERANCE", "export"]

_TRANSFORM = (
    "resize", "crop", "side", "interpolation", "multiple", "map_sigma", "value_range", "channels", "max_pixels",
)  # fmt: skip


TOLERANCE = 1e-4
"""Largest difference of a score or of a map's value, as a fraction of the largest one of the check images."""


def export(run: Run, output: str | Path, format: str = "stablehlo", batch: int = 0, check: int = 8) -> Path:
    """Writes a fitted detector to `detector.stablehlo` or `detector.onnx`, and what goes with it to a `.json` beside it.

    Both programs, the one here and the one in the file, are run on images of the run's test split (without test images: on
    held-out or training images); nothing is written where they disagree.

    Args:
      run: a fitted run.
      output: a directory.
      format: "stablehlo" or "onnx".
      batch: images that the program takes at a time; 0: any number, one after the other (StableHLO), or one (ONNX).
      check: how many images it is checked on.

    Returns:
      The file.

    Raises:
      UserError: an unknown format, a package that is missing, an operation that has no form in ONNX, 2 GiB or more to hold, or
        a disagreement: a score or map by more than `TOLERANCE`, or a decision.
    """
    if format not in FORMATS:
        raise UserError(f"there is no export format {format!r}; {did_you_mean(format, FORMATS)}")
    require(format)
    if run.transform.tile is not None:
        raise UserError("an exported file takes whole images and this run works in tiles; fit one with data.tile=0")
    if run.detector.inputs or run.detector.prepare is not None:
        raise UserError("an exported file takes images alone, and this detector needs more of each image; predict with the run")
    split = run.data.split
    items = split.test or split.validation or split.train
    chosen = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, check).round().astype(int))]
    images = np.stack([run.transform.image(run.data.dataset.read(item)[0]) for item in chosen])
    # typed PRNG keys are no NumPy arrays
    state, frozen = jax.tree.map(lambda x: x if _is_key(x) else jax.device_get(x), (run.precomputed, run.ready))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, frozen)) if not _is_key(leaf))
    if held >= LARGEST:
        raise UserError(
            f"the fitted detector holds {held / 2**30:.1f} GiB and a file of either format at most 2; fit a smaller one "
            "(patchcore: detector.coreset_ratio; padim: detector.num_channels; or fewer layers)"
        )
    shape, size = images.shape[1:], batch or 1

    embed, category = run.detector.embed, 0 if len(run.spec.categories) == 1 else -1

    def predict(image):
        held_state, held_frozen = jax.tree.map(lambda x: x if _is_key(x) else jnp.asarray(x), (state, frozen))
        rows = jnp.zeros(image.shape[0], jnp.int32)
        features = () if embed is None else embed(held_frozen, image)
        batch = Batch(image, features, rows + category, rows - 1, {}, rows == 0)
        return tuple(each for each in run.detector.predict(held_state, held_frozen, batch) if each is not None)

    def one_by_one(image):
        return jax.lax.map(lambda each: jax.tree.map(lambda x: x[0], predict(each[None])), image)

    outputs = ["score", "map"][: len(jax.eval_shape(predict, jax.ShapeDtypeStruct((size, *shape), jnp.float32)))]
    if format == "onnx":
        content = to_onnx(predict, (size, *shape), outputs)
    else:
        number = batch or jax.export.symbolic_shape("b")[0]
        argument = jax.ShapeDtypeStruct((number, *shape), jnp.float32)
        program = jax.jit(predict if batch else one_by_one)
        content = bytes(jax.export.export(program, platforms=PLATFORMS)(argument).serialize())
    facts = {
        "format": format,
        "input": {
            "name": "image",
            "shape": [batch or (1 if format == "onnx" else "b"), *shape],
            "dtype": "float32",
            "range": [0, 1],
        },
        "outputs": outputs,
        "transform": {key: getattr(run.transform, key) for key in _TRANSFORM},
        "batch_size": size,
        "detector": run.config["detector"],
        "weights": run.weights,
        "threshold": run.threshold,
        "versions": {"jax": jax.__version__},
    }
    try:
        program = program_of(format, content, outputs)
    except Exception as error:  # onnxruntime's own types
        if format != "onnx":
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"onnxruntime refuses what jax2onnx made of this detector ({reason[:200]}); export it with --format=stablehlo"
        ) from error
    exported = Exported(program, run.transform, run.threshold, size)
    facts["check"] = _compare(run, exported, images)
    path = Path(output) / f"detector.{format}"
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)
    files.write_json(path.with_name(path.name + ".json"), facts)
    return path


def _compare(run: Run, exported: Exported, images: np.ndarray) -> dict[str, float]:
    """The largest differences on the check images, as fractions of the largest value."""
    size = exported.batch_size
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), np.float32)])
    parts = [exported.predict_batch(padded[i : i + size]) for i in range(0, len(padded), size)]
    said = jax.tree.map(lambda *each: np.concatenate(each)[: len(images)], *parts)
    truth = jax.tree.map(np.asarray, run.predict_batch(images))
    score = said.score
    found = {"images": len(images), "score_difference": _fraction(score, truth.score)}
    if truth.map is not None:
        found["map_difference"] = _fraction(said.map, truth.map)
    worst = max(value for key, value in found.items() if key.endswith("_difference"))
    if not worst <= TOLERANCE:
        raise UserError(
            f"the exported program disagrees with the detector by {worst:.2g} of the largest value, more than {TOLERANCE:g}; "
            "nothing was written: please report it with the config"
        )
    if run.threshold is not None:
        value = run.threshold["value"]
        flips = int(np.sum((score >= value) != (truth.score >= value)))
        if flips:
            raise UserError(f"the exported program decides otherwise on {flips} of {len(images)} images; nothing was written")
    return found


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _fraction(values: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(values - truth).max() / max(np.abs(truth).max(), np.finfo(np.float32).tiny))
