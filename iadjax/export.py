"""A fitted detector as one file that needs none of its configs: StableHLO by `jax.export`, or ONNX.

The program takes images `[B, H, W, 3]` float32 in [0, 1] of one size and gives raw scores `[B]` and maps `[B, H, W]`. The
state and the frozen weights are constants in it: in fitting they are arguments, here the file has to hold them. Thresholds,
score statistics and the transform are in a JSON file beside it, so that they can be changed without another export.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import files
from iadjax.data import Transform
from iadjax.detector import Prediction
from iadjax.errors import UserError, did_you_mean
from iadjax.platforms import plain
from iadjax.run import Run, predict_images

__all__ = ["FORMATS", "TOLERANCE", "Exported", "export", "load_exported"]

FORMATS = ("stablehlo", "onnx")
TOLERANCE = 1e-4
"""Largest difference of a score or of a map's value, as a share of the largest one of the check images."""

_PLATFORMS = ("cpu", "cuda", "tpu")
# of flatbuffers and protocol buffers; the program itself is small
_LARGEST = 2**31 - 2**24
_EXTRA = {
    "stablehlo": (("flatbuffers",), "python -m pip install flatbuffers"),
    # its metadata asks for an old Orbax that it does not use here
    "onnx": (
        ("jax2onnx", "onnxruntime"),
        'python -m pip install "iadjax[onnx]" and then python -m pip install --no-deps "jax2onnx>=0.17"',
    ),
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported detector, as far as predicting goes like a `Run`.

    Attributes:
      program: images `[B, H, W, 3]` float32 -> (score, map).
      transform: resize and crop.
      threshold: as in `Run`.
      batch_size: images at a time; the program may take no other number.
    """

    program: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    transform: Transform
    threshold: dict[str, Any] | None
    batch_size: int

    def predict_batch(self, image: np.ndarray) -> Prediction:
        """Scores of images that are resized and cropped already, `[batch_size, H, W, 3]` float32 in [0, 1]."""
        return Prediction(*map(np.asarray, self.program(np.asarray(image, np.float32))))

    def predict(self, images: Sequence[np.ndarray | str | Path] | np.ndarray) -> Prediction:
        """Scores and maps of images as they are, see `Run.predict`."""
        return predict_images(images, self.transform.image, self.batch_size, self.predict_batch)


def export(run: Run, output: str | Path, format: str = "stablehlo", batch: int = 0, check: int = 8) -> Path:
    """Writes a fitted detector to `detector.stablehlo` or `detector.onnx`, and what goes with it to a `.json` beside it.

    Both programs, the one here and the one in the file, are run on images of the run's test split; nothing is written where
    they disagree.

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
    _require(format)
    if run.transform.tile is not None:
        raise UserError("an exported file takes whole images and this run works in tiles; fit one with data.tile=0")
    items = run.data.split.test
    chosen = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, check).round().astype(int))]
    images = np.stack([run.transform.image(run.data.dataset.read(item)[0]) for item in chosen])
    state, frozen = jax.device_get((run.state, run.ready))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, frozen)))
    if held >= _LARGEST:
        raise UserError(
            f"the fitted detector holds {held / 2**30:.1f} GiB and a file of either format at most 2; fit a smaller one "
            "(patchcore: detector.coreset_ratio; padim: detector.num_channels; or fewer layers)"
        )
    shape, size = images.shape[1:], batch or 1

    def predict(image):
        return tuple(run.detector.predict(*jax.tree.map(jnp.asarray, (state, frozen)), image))

    def one_by_one(image):
        return jax.lax.map(lambda each: jax.tree.map(lambda x: x[0], predict(each[None])), image)

    if format == "onnx":
        content = _to_onnx(predict, (size, *shape))
    else:
        number = batch or jax.export.symbolic_shape("b")[0]
        argument = jax.ShapeDtypeStruct((number, *shape), jnp.float32)
        program = jax.jit(predict if batch else one_by_one)
        content = bytes(jax.export.export(program, platforms=_PLATFORMS)(argument).serialize())
    facts = {
        "format": format,
        "input": {
            "name": "image",
            "shape": [batch or (1 if format == "onnx" else "b"), *shape],
            "dtype": "float32",
            "range": [0, 1],
        },
        "outputs": ["score", "map"],
        "transform": {"resize": run.transform.resize, "crop": run.transform.crop},
        "batch_size": size,
        "detector": run.config["detector"],
        "weights": run.weights,
        "threshold": run.threshold,
        "versions": {"jax": jax.__version__},
    }
    try:
        program = _program(format, content)
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


def load_exported(path: str | Path) -> Exported:
    """An exported detector.

    Raises:
      UserError: there is no such file or none beside it, or a package that it needs is missing.
    """
    path = Path(path)
    about = path.with_name(path.name + ".json")
    for file in (path, about):
        if not file.is_file():
            raise UserError(
                f"there is no file {file}; an exported detector is a program and a .json of the same name beside it"
            )
    facts = json.loads(about.read_text(encoding="utf-8"))
    _require(facts["format"])
    sizes = (facts["transform"][key] for key in ("resize", "crop"))
    transform = Transform(*(tuple(size) if isinstance(size, list) else size for size in sizes))
    return Exported(_program(facts["format"], path.read_bytes()), transform, facts["threshold"], facts["batch_size"])


def _require(format: str) -> None:
    modules, command = _EXTRA[format]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{format} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: {command}"
        )


def _program(format: str, content: bytes) -> Callable:
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(["score", "map"], {"image": image})
    return jax.jit(jax.export.deserialize(bytearray(content)).call)


def _to_onnx(predict: Callable, shape: tuple[int, ...]) -> bytes:
    import jax2onnx

    argument = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        with plain():
            model = jax2onnx.to_onnx(predict, [argument], input_names=["image"], output_names=["score", "map"])
    except Exception as error:  # the converter raises whatever its handlers raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"jax2onnx cannot convert this detector ({type(error).__name__}: {reason[:200]}); export it with --format=stablehlo"
        ) from error
    # the converter notes wrong shapes of some intermediate results, which the runtime can infer itself
    del model.graph.value_info[:]
    return model.SerializeToString()


def _compare(run: Run, exported: Exported, images: np.ndarray) -> dict[str, float]:
    """The largest differences on the check images, as shares of the largest value."""
    size = exported.batch_size
    padded = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), np.float32)])
    parts = [exported.predict_batch(padded[i : i + size]) for i in range(0, len(padded), size)]
    score, maps = (np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True))
    truth = Prediction(*map(np.asarray, run.predict_batch(images)))
    found = {
        "images": len(images),
        "score_difference": _share(score, truth.score),
        "map_difference": _share(maps, truth.map),
    }
    worst = max(found["score_difference"], found["map_difference"])
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


def _share(values: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(values - truth).max() / max(np.abs(truth).max(), np.finfo(np.float32).tiny))
