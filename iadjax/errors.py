"""The one exception that stands for a user's mistake."""

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "did_you_mean"]


class UserError(ValueError):
    """Bad input: its message is one sentence saying what is wrong, where, and what to do.

    Scripts print it without a traceback and exit with status 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause for an error message: the closest of `known`, then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid names: {', '.join(known)}"
