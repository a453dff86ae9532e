"""Which files and folders count: what is ignored, what normal images are called, which suffixes are read."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from iadjax.data.images import SUFFIXES
from iadjax.errors import UserError

__all__ = [
    "IGNORED", "NORMAL", "NOTES", "children", "count_of", "files_below", "ignored_below", "images_below", "is_ignored",
    "is_normal", "left_out",
]  # fmt: skip

IGNORED = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found",
     "system volume information", "__pycache__"}
)  # fmt: skip
"""Names, in lower case, of files and folders that systems leave behind; so are all that begin with a dot."""

NORMAL = frozenset(
    {"good", "ok", "normal", "nominal", "healthy", "pass", "passed", "defect_free", "no_defect", "non_defective"}
)  # fmt: skip
"""Names of folders of normal images, in lower case; a hyphen or a space is as good as an underscore."""

NOTES = frozenset(
    {".txt", ".md", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".xlsx", ".yaml", ".yml", ".toml", ".ini", ".log", ".html",
     ".pdf", ".py", ".ipynb", ".zip", ".tar", ".gz", ".bz2", ".xz", ".7z", ".rar", ".md5", ".sha256"}
)  # fmt: skip
"""Suffixes of notes and archives beside images, which nobody misses."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or of the system."""
    return name.startswith(".") or name.casefold() in IGNORED


def is_normal(name: str) -> bool:
    """Whether a folder of this name holds normal images."""
    return name.casefold().replace("-", "_").replace(" ", "_") in NORMAL


def children(directory: Path) -> list[Path]:
    """What lies directly in a directory, by name, without what is ignored; nothing where there is no directory.

    Raises:
      UserError: it cannot be listed.
    """
    return [directory / entry.name for entry in _entries(directory) if not is_ignored(entry.name)]


def _entries(directory: Path) -> list[os.DirEntry]:
    """What lies directly in a directory; the entries know what is a folder without asking the disk again."""
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot list the folder {directory} ({error.strerror or error}); make it readable") from error


def files_below(directory: Path) -> list[Path]:
    """Files in a directory and in its folders, by path, without what is ignored; links to folders are followed."""
    return sorted(_walk(directory, ()))


def _walk(directory: Path, above: tuple[Path, ...]) -> Iterable[Path]:
    above = (*above, directory.resolve())
    for entry in _entries(directory):
        path = directory / entry.name
        if is_ignored(entry.name):
            continue
        # a link may lead nowhere, or to itself
        if not (os.path.isdir(path) if entry.is_symlink() else entry.is_dir()):
            yield path
        elif path.resolve() not in above:
            # a link to a folder above has no end
            yield from _walk(path, above)


def images_below(directory: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Files of `files_below` with one of the suffixes (in lower case)."""
    keep = frozenset(suffixes)
    return [path for path in files_below(directory) if path.suffix.lower() in keep]


def ignored_below(directory: Path) -> list[Path]:
    """Hidden and system files and folders in a directory and in its folders; of such a folder only itself."""
    entries = _entries(directory)
    found = [directory / entry.name for entry in entries if is_ignored(entry.name)]
    folders = [entry.name for entry in entries if not is_ignored(entry.name) and entry.is_dir(follow_symlinks=False)]
    return found + [each for name in folders for each in ignored_below(directory / name)]


def left_out(root: Path, used: Iterable[Path], reasons: dict[str, str]) -> list[tuple[str, str]]:
    """(path from the root, why) of the files below `root` that nobody reads, but for notes and archives.

    Args:
      root: a folder.
      used: files that are read.
      reasons: {folder from the root, "" for itself: why an image in it is not read}; the deepest folder counts.
    """
    used, found = frozenset(used), []
    for file in files_below(root):
        suffix, path = file.suffix.lower(), file.relative_to(root)
        if file in used or suffix in NOTES:
            continue
        why = next((reasons[each] for each in map(_text, path.parents) if each in reasons), "not in the layout")
        found.append((path.as_posix(), why if suffix in SUFFIXES else f"suffix {suffix or 'none'}"))
    return found


def _text(folder: Path) -> str:
    return "" if folder == Path() else folder.as_posix()


def count_of(found: Iterable[tuple[str, str]]) -> str:
    """The reasons of `left_out` with their numbers, the most frequent first: "suffix .heic 8, directly under test 3"."""
    return ", ".join(f"{why} {number}" for why, number in Counter(why for _, why in found).most_common())
