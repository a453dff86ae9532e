"""An exported detector, read back."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iadjax import files
from iadjax.data import Transform
from iadjax.data.images import to_float
from iadjax.detector import Prediction
from iadjax.errors import UserError
from iadjax.experiment.images import as_images, as_pixels, check_batch, score_images
from iadjax.export.formats import FORMATS, program_of, require

__all__ = ["Exported", "load_exported"]


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported detector, as far as predicting goes like a `Run`.

    Attributes:
      program: images `[B, H, W, 3]` float32 -> (score, map), or (score,) where the detector does not localise.
      transform: resize and crop.
      threshold: as in `Run`.
      batch_size: images at a time; the program may take no other number.
      fingerprint: SHA-256 of the file; "" before there is one.
    """

    program: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    transform: Transform
    threshold: dict[str, Any] | None
    batch_size: int
    fingerprint: str = ""

    def predict_batch(self, image: np.ndarray, extra: Mapping[str, np.ndarray] | None = None) -> Prediction:
        """Scores of resized and cropped images `[batch_size, H, W, 3]`, uint8 or float32 in [0, 1]; `extra` stays empty."""
        check_batch(image)
        if extra:
            raise UserError(f"an exported detector takes images alone, not {', '.join(extra)}")
        return Prediction(*map(np.asarray, self.program(to_float(np.asarray(image)))))

    def predict(self, images: Any) -> Prediction:
        """Scores and maps of images as users have them, see `Run.predict`."""
        pixels = (self.read(image, f"image {i}") for i, image in enumerate(as_images(images)))
        return score_images(pixels, self.transform.image, (self.batch_size,), self.predict_batch)

    def read(self, image: Any, name: str = "an image") -> np.ndarray:
        """One image as `[H, W, 3]`, uint8 or float32 in [0, 1], see `experiment.images.as_pixels`."""
        return as_pixels(image, name, self.transform.read)


def load_exported(path: str | Path, max_pixels: int | None = None) -> Exported:
    """An exported detector; `max_pixels`: another `data.max_pixels`, the limit of an image's size.

    Raises:
      UserError: there is no such file or none beside it, one is damaged, or a package that it needs is missing.
    """
    path = files.place(path)
    about = path.with_name(path.name + ".json")
    for file in (path, about):
        if not file.is_file():
            raise UserError(
                f"there is no file {file}; an exported detector is a program and a .json of the same name beside it"
            )
    facts = files.read_json(about, "export the run again")
    missing = [key for key in ("format", "transform", "outputs", "threshold", "batch_size") if key not in facts]
    if missing or facts["format"] not in FORMATS:
        raise UserError(f"{about} does not describe an exported detector ({', '.join(missing) or 'format'}); export it again")
    require(facts["format"])
    content = path.read_bytes()
    try:
        sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in facts["transform"].items()}
        transform = Transform(**sizes)
        program = program_of(facts["format"], content, facts["outputs"])
    except Exception as error:  # flatbuffers, MLIR and onnxruntime have types of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason[:200]}); export the run again") from error
    if max_pixels is not None:
        transform = transform._replace(max_pixels=max_pixels)
    return Exported(program, transform, facts["threshold"], facts["batch_size"], hashlib.sha256(content).hexdigest())
