"""numpy arrays and lists of ids to Arrow columns and back, through their buffers.

Arrow's own conversions import pandas on the way where it is installed: two seconds of every start, for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TYPES = {"uint64": pa.uint64(), "int64": pa.int64(), "int32": pa.int32(), "float32": pa.float32()}


def numbers(values: NDArray[Any]) -> pa.Array:
    """An Arrow array of the same numbers; NaN stays NaN."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(TYPES[values.dtype.name], len(values), [None, pa.py_buffer(values)])


def ids(values: Sequence[str]) -> pa.DictionaryArray:
    """An Arrow array of strings, each distinct one kept once."""
    codes: dict[str, int] = {}
    indices = np.fromiter((codes.setdefault(value, len(codes)) for value in values), np.int32, len(values))
    encoded = [name.encode() for name in codes]
    offsets = np.concatenate([[0], np.cumsum([len(name) for name in encoded])]).astype(np.int32)
    distinct = pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))
    return pa.DictionaryArray.from_arrays(numbers(indices), distinct)


def array(column: pa.ChunkedArray) -> NDArray[Any]:
    """The numbers of a column without nulls."""
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.empty(0, {kind: name for name, kind in TYPES.items()}[column.type])
    return np.concatenate(chunks) if len(chunks) > 1 else chunks[0]
