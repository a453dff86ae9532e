"""Writing files so that none is ever half-written: to a temporary name, then renamed. Reading what was written."""

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from iadjax.errors import UserError

__all__ = ["between_marks", "csv_line", "place", "printable", "read_json", "replacing", "write_json", "write_text"]


def place(path: str | Path) -> Path:
    """A path as users write it: `~` is the home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} begins with the home directory of a user who does not exist; give the whole path") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it on success, removes it on failure."""
    # a long name leaves no room for more
    name = path.name if len(os.fsencode(path.name)) < 220 else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"cannot write {path}: {error.filename or path} is in the way; give another directory") from error
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); free some space or give another directory"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, as `printable` makes it."""
    with replacing(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def between_marks(text: str, mark: str, content: str) -> str:
    """The page with the content between the marks `<!-- mark -->` and `<!-- /mark -->`.

    Raises:
      UserError: the page has no such marks.
    """
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    if begin not in text or end not in text:
        raise UserError(f"the page has no marks {begin.strip()} and {end}; add them where the {mark} belong")
    head, rest = text.split(begin, 1)
    return head + begin + content + end + rest.split(end, 1)[1]


def printable(text: str) -> str:
    """Text with names of files that are not UTF-8: their bytes are written like \\xe9."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file; NaN becomes null."""
    write_text(path, json.dumps(_null(value), indent=2) + "\n")


def csv_line(row: Sequence[Any]) -> str:
    """One line of a CSV table; a float has the nine digits that tell every float32 apart."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(format(each, ".9g") if isinstance(each, float) else each for each in row)
    return text.getvalue()


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
      path: the file.
      advice: what to do if it is damaged, for the message.

    Raises:
      UserError: it cannot be read, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path.parent}: {path.name} holds no JSON object; {advice}")
    return value


def _null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_null(each) for each in value]
    return None if isinstance(value, float) and value != value else value
