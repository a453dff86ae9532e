"""Maps and masks on disk: which file belongs to which image, and how maps are read."""

from pathlib import Path, PurePosixPath

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from iadjax.data.images import SUFFIXES
from iadjax.data.listing import images_below
from iadjax.errors import UserError

__all__ = ["Folder", "read_map"]

_SUFFIXES = {"map": frozenset({".tif", ".tiff", ".npy", ".png"}), "mask": SUFFIXES | {".npy"}}
_PASSED_OVER = frozenset({"test", "ground_truth", "mask", "masks", "maps", "anomaly_maps"})


class Folder:
    """The map or mask files under a folder, by the parts of their relative path that tell images apart.

    Attributes:
      root: the folder.
      files: file by key, in the order of the keys.
    """

    def __init__(self, root: str | Path, kind: str):
        self.root, self.kind = Path(root), kind
        if not self.root.is_dir():
            raise UserError(f"there is no folder of {kind}s {self.root}")
        self.files: dict[tuple[str, ...], Path] = {}
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for file in images_below(self.root, _SUFFIXES[kind]):
            key = _key(file.relative_to(self.root).as_posix())
            if key in self.files:
                raise UserError(f"{self.files[key]} and {file} are {kind}s of one image; keep one of them")
            self.files[key] = file
            self._by_name.setdefault(key[-1], []).append(key)
        if not self.files:
            raise UserError(f"{self.root} holds no {kind}s; the suffixes are {', '.join(sorted(_SUFFIXES[kind]))}")

    def find(self, path: str) -> Path | None:
        """The file of the image `path`; None if there is none.

        Raises:
          UserError: several files fit equally well.
        """
        plain = _key(path)
        # a.png.tiff, as scripts/predict.py names results, before a.tiff
        for key in ((*plain[:-1], PurePosixPath(path.replace("\\", "/")).name), plain):
            if key in self.files:
                return self.files[key]
            fits = [each for each in self._by_name.get(key[-1], ()) if _ends(key, each) or _ends(each, key)]
            if len(fits) > 1:
                names = " and ".join(str(self.files[each]) for each in fits[:2])
                raise UserError(f"{names} both fit the image {path}; name {self.kind}s by the paths of their images")
            if fits:
                return self.files[fits[0]]
        return None


def read_map(file: Path) -> np.ndarray:
    """A map as float32 `[H, W]`; axes of length 1 are dropped.

    Raises:
      UserError: unreadable, not 2-D, or not finite; it is named.
    """
    array = _read(file)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise UserError(f"the map {file} must be one 2-D array of real numbers, got {array.shape} of {array.dtype}")
    if not np.isfinite(array).all():
        raise UserError(f"the map {file} holds {int(np.sum(~np.isfinite(array)))} NaN or infinite of {array.size} values")
    return array.astype(np.float32)


def _read(file: Path) -> np.ndarray:
    try:
        if file.suffix.lower() == ".npy":
            return _plane(np.load(file, allow_pickle=False))
        if file.suffix.lower() in (".tif", ".tiff"):
            return _plane(np.asarray(tifffile.imread(file)))
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except (OSError, ValueError, KeyError, SyntaxError, UnidentifiedImageError, tifffile.TiffFileError) as error:
        raise UserError(f"cannot read {file} ({error})") from error


def _plane(array: np.ndarray) -> np.ndarray:
    """Without the axes of length 1 that an array has beyond two."""
    while array.ndim > 2 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    return array


def _key(path: str) -> tuple[str, ...]:
    pure = PurePosixPath(path.replace("\\", "/"))
    folders = [part for part in pure.parts[:-1] if part.lower() not in _PASSED_OVER and part not in ("/", ".")]
    return (*folders, pure.stem.removesuffix("_mask"))


def _ends(long: tuple[str, ...], short: tuple[str, ...]) -> bool:
    return long[-len(short) :] == short
