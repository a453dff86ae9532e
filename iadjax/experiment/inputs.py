"""What `predict_files` scores: an image, a video, a folder, or the files that fit a pattern; one image after the other."""

import functools
import glob
import hashlib
import importlib.util
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadjax import progress
from iadjax.data.listing import SUFFIXES, is_ignored
from iadjax.errors import UserError
from iadjax.files import printable

__all__ = ["KINDS", "LEGEND", "MARKER", "VIDEOS", "Input", "as_text", "count", "find", "inputs", "safe_name"]

VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})

KINDS = ("overlays", "maps", "masks", "contours")
"""Folders of an output, one for each kind of file."""

MARKER = "predict.json"
"""The file by which an output is known."""

LEGEND = "legend.png"
"""The colour bar of the overlays."""

# bytes of a name: systems allow 255, and our suffixes, the number of a frame and the mark of a temporary file follow it
_LONGEST = 200


class Input(NamedTuple):
    """One image to score.

    Attributes:
      path: its name in tables: relative to the folder that was given, "/" between folders, `name.mp4#000123` for a frame.
      name: the same where it can be written, else a safe one; files of the output are called so.
      read: gives the file, or the pixels of a frame.
    """

    path: str
    name: str
    read: Callable[[], Any]


def find(source: str | Path, output: Path) -> tuple[Path, list[str]]:
    """The folder and, relative to it and sorted, the images or videos of `source`, without what predicting wrote earlier.

    Args:
      source: an image, a video, a folder that is searched for images, or a pattern like "frames/*.png" or "**/*.mp4".
      output: where the results go.

    Raises:
      UserError: nothing is there, or a video cannot be read because PyAV is missing.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        root, found = path, _walk(path)
        wanted = SUFFIXES
    elif path.exists():
        return path.parent, _readable([path.name])
    elif glob.has_magic(str(source)):
        root, found = _matches(str(path))
        wanted = SUFFIXES | VIDEOS
    else:
        raise UserError(f"there is no file or folder {source}; give one with --input")
    made = functools.lru_cache(maxsize=4096)(functools.partial(_is_output, output=output.resolve()))
    kept, own, others = [], [], []
    for each in found:
        suffix = os.path.splitext(each)[1].lower()
        if suffix not in SUFFIXES | VIDEOS:
            continue
        (own if _was_written(root, each, made) else kept if suffix in wanted else others).append(each)
    for some, what in ((own, "results of earlier calls"), (others, "videos, which are given one by one")):
        if some:
            progress.say(f"left out: {len(some)} {what}, like {as_text(some[0])}")
    if not kept:
        raise UserError(f"{source} holds no images ({', '.join(sorted(SUFFIXES))})")
    return root, _readable(sorted(kept, key=lambda each: each.split(os.sep)))


def _readable(files: list[str]) -> list[str]:
    if any(_is_video(file) for file in files) and importlib.util.find_spec("av") is None:
        raise UserError('a video needs PyAV, which is not installed: python -m pip install "iadjax[video]"')
    return files


def _is_video(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in VIDEOS


def _walk(root: Path) -> Iterator[str]:
    """Files under a folder but for hidden ones and those of the system, relative to it."""
    for folder, folders, names in os.walk(root, onerror=_cannot_list):
        folders[:] = [name for name in folders if not is_ignored(name)]
        for name in names:
            if not is_ignored(name):
                yield os.path.relpath(os.path.join(folder, name), root)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"cannot list the folder {error.filename} ({error.strerror}); make it readable") from error


def _matches(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first wildcard, and the files that fit, relative to it."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    files = [file for file in glob.iglob(pattern, recursive=True) if os.path.isfile(file)]
    if not files:
        raise UserError(f"no file fits the pattern {pattern}; quote it, so that the shell does not replace it")
    return root, [os.path.relpath(file, root) for file in files]


def _is_output(folder: str, output: Path) -> bool:
    """Whether predicting, or fitting, wrote to a folder."""
    path = Path(folder)
    if path.resolve() == output or (path / MARKER).is_file():
        return True
    # of earlier versions, which left no marker; and of runs
    return (path / "scores.csv").is_file() and ((path / "overlays").is_dir() or (path / "run.json").is_file())


def _was_written(root: Path, file: str, made: Callable[[str], bool]) -> bool:
    """Whether a file lies where an output folder holds its pictures."""
    parts = file.split(os.sep)
    for depth, part in enumerate(parts):
        if part in (*KINDS, "report", LEGEND) and made(os.path.join(root, *parts[:depth])):
            return True
    return False


def inputs(root: Path, files: Iterable[str]) -> Iterator[Input]:
    """The images of files that `find` found; a video is decoded frame by frame, as they are asked for.

    `Input.read` of a video that cannot be decoded raises a UserError, as that of an image does when it is read.
    """
    for file in files:
        path, name = as_text(file), safe_name(file)
        if not _is_video(file):
            yield Input(path, name, functools.partial(Path, root / file))
            continue
        try:
            for number, frame in enumerate(_frames(root / file)):
                yield Input(f"{path}#{number:06d}", f"{name}#{number:06d}", lambda frame=frame: frame)
        except UserError as error:
            yield Input(path, name, functools.partial(_raise, error))


def count(root: Path, files: Iterable[str]) -> int:
    """How many images there are; of frames, what the headers of videos say."""
    return sum(_number_of_frames(root / file) if _is_video(file) else 1 for file in files)


def _number_of_frames(file: Path) -> int:
    import av

    try:
        with file.open("rb") as stream, av.open(stream) as container:
            return container.streams.video[0].frames
    except (av.FFmpegError, OSError, ValueError, IndexError):
        # it is named when its turn comes
        return 1


def _frames(file: Path) -> Iterator[np.ndarray]:
    """The frames of a video, `[H, W, 3]` uint8, turned as the file says."""
    import av

    empty = True
    try:
        # PyAV takes no names that are not UTF-8
        with file.open("rb") as stream, av.open(stream) as container:
            for frame in container.decode(video=0) if container.streams.video else ():
                empty = False
                # counter-clockwise, in degrees
                yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"cannot read the video {as_text(str(file))} ({error}); repair or remove it") from error
    if empty:
        raise UserError(f"the video {as_text(str(file))} holds no frames; repair or remove it")


def _raise(error: Exception) -> None:
    raise error


def as_text(file: str) -> str:
    """A path as text: bytes of a name that are not UTF-8 are written like \\xe9; "/" between folders."""
    return printable(file.replace(os.sep, "/"))


def safe_name(file: str) -> str:
    """A relative path under which results can be written: itself, but for parts that are too long, not UTF-8, or hold
    control characters.

    Such a part is shortened and cleaned, and the start of its hash follows, so that two do not meet.
    """
    return "/".join(_safe_part(part) for part in file.split(os.sep))


def _safe_part(part: str) -> str:
    content = part.encode("utf-8", "surrogateescape")
    # control characters, and bytes that are not UTF-8
    clean = "".join("_" if unicodedata.category(character) in ("Cc", "Cs") else character for character in part)
    if len(content) <= _LONGEST and clean == part:
        return part
    short = clean.encode()[: _LONGEST - 20].decode(errors="ignore")
    return f"{short}~{hashlib.sha256(content).hexdigest()[:12]}"
