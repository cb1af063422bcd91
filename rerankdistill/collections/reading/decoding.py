"""Bytes of unknown encoding to text."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rerankdistill.collections.reading.parts import Unreadable

SAMPLE = 200_000
"""Bytes that an encoding is guessed from."""


class Decoded(NamedTuple):
    """A file's text, and the encoding it was read with where that is not UTF-8."""

    text: str
    guessed: str = ""


def decode(path: Path) -> Decoded:
    """Read a text file: as UTF-8 (with or without a mark), else as what its bytes look like.

    Raises:
        Unreadable: these bytes are no text.
    """
    data = path.read_bytes()
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if data.startswith(mark):
            try:
                return Decoded(data.decode(encoding))
            except UnicodeDecodeError as error:
                raise Unreadable(f"it says it is {encoding} and is not") from error
    if b"\0" in data[:SAMPLE]:
        raise Unreadable("it holds binary data, no text")
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError:
        return _guess(data)


def _guess(data: bytes) -> Decoded:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE]).best()
    if best is None:
        raise Unreadable("its encoding is unknown; save it as UTF-8")
    return Decoded(data.decode(best.encoding, "replace"), best.encoding)
