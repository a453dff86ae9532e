"""CLIP's tokenizer: byte-pair encoding of lower-case text (Sennrich et al., ACL 2016; Radford et al., ICML 2021).

`clip_merges.txt.gz` holds the 48,894 merges that OpenAI's CLIP uses of its published list (MIT licence). No small library has
them: those with tokenizers need a download or a Rust extension.
"""

import gzip
import html
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from iadjax.errors import UserError

__all__ = ["CONTEXT", "VOCABULARY", "tokenize"]

CONTEXT, VOCABULARY = 77, 49408

_START, _END = VOCABULARY - 2, VOCABULARY - 1
_CONTRACTION = re.compile("'(s|t|re|ve|m|ll|d)")
# of a text's characters: L letters, N numbers, O others, a space for white space
_RUN = re.compile("L+|N|O+")


def tokenize(texts: Sequence[str], length: int = CONTEXT) -> np.ndarray:
    """The token ids of texts.

    Args:
      texts: in any language; entities of HTML are decoded, white space is joined, letters become small.
      length: of the result's rows.

    Returns:
      `[len(texts), length]` int32: the start token, the text's, the end token, then 0.

    Raises:
      UserError: a text has more tokens than fit.
    """
    ids = np.zeros((len(texts), length), np.int32)
    for row, text in zip(ids, texts, strict=True):
        tokens = [_START, *(token for word in _words(text) for token in _encode(word)), _END]
        if len(tokens) > length:
            raise UserError(f"CLIP reads {length} tokens, and {text!r} has {len(tokens)}; shorten it")
        row[: len(tokens)] = tokens
    return ids


def _words(text: str) -> list[str]:
    text = " ".join(html.unescape(html.unescape(text)).split()).lower()
    kinds = "".join(" " if c.isspace() else {"L": "L", "N": "N"}.get(unicodedata.category(c)[0], "O") for c in text)
    words, i = [], 0
    while i < len(text):
        match = _CONTRACTION.match(text, i) or _RUN.match(kinds, i)
        if match:
            words.append(text[i : match.end()])
        i = match.end() if match else i + 1
    return words


@lru_cache
def _vocabulary() -> tuple[dict[int, str], dict[tuple[str, str], int], dict[str, int]]:
    """A character for each byte, the rank of each merge, and the id of each token."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    characters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    text = gzip.decompress((Path(__file__).parent / "clip_merges.txt.gz").read_bytes()).decode()
    merges = [(first, second) for first, second in (line.split() for line in text.splitlines())]
    letters = list(characters.values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    return characters, {pair: i for i, pair in enumerate(merges)}, {token: i for i, token in enumerate(tokens)}


@lru_cache(4096)
def _encode(word: str) -> tuple[int, ...]:
    """The ids of one word: its two neighbours of the lowest rank are merged until no pair has a rank."""
    characters, ranks, ids = _vocabulary()
    parts = [characters[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
        best = min(zip(parts, parts[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(parts):
            pair = tuple(parts[i : i + 2]) == best
            merged.append("".join(parts[i : i + 1 + pair]))
            i += 1 + pair
        parts = merged
    return tuple(ids[part] for part in parts)
