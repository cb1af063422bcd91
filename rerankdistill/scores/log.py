"""The append log of a score store: checksummed records of one batch each.

A record is a header (magic, sequence number, length and checksum of the payload, checksum of the header) and a payload,
an Arrow IPC stream with the rows of one batch. A process killed while it appends leaves a torn record at the end: it is
recognised by its checksum and cut off when the log is next opened for writing. An unreadable record with readable ones
after it is no torn tail but damage.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from rerankdistill.errors import DamagedArtifact

MAGIC = b"RDSL"
HEADER = struct.Struct("<4sQQI")
CHECK = struct.Struct("<I")
HEAD = HEADER.size + CHECK.size

COLUMNS = [
    ("query_id", pa.dictionary(pa.int32(), pa.string())),
    ("doc_id", pa.dictionary(pa.int32(), pa.string())),
    ("query", pa.uint64()),
    ("doc", pa.uint64()),
    ("score", pa.float32()),
]
"""A row: the ids for joining, the 64-bit hashes of the two texts, the raw score."""

KEPT = {"details": ("details", pa.list_(pa.float32())), "traces": ("trace", pa.string())}
"""What else a row may hold, by the name that a teacher's ``keeps`` gives it."""


def schema(keeps: Sequence[str] = ()) -> pa.Schema:
    """The columns of a store whose teacher keeps these things beside its scores."""
    return pa.schema([*COLUMNS, *(KEPT[name] for name in KEPT if name in keeps)])


class Record(NamedTuple):
    sequence: int
    table: pa.Table
    start: int
    end: int
    """The record's place in the file, in bytes."""


def encode(sequence: int, table: pa.Table) -> bytes:
    """The bytes of one record."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    payload: bytes = sink.getvalue().to_pybytes()
    header = HEADER.pack(MAGIC, sequence, len(payload), zlib.crc32(payload))
    return header + CHECK.pack(zlib.crc32(header)) + payload


def records(data: bytes, *, damaged: list[int] | None = None) -> Iterator[Record]:
    """The readable records of a log, in order; a torn tail is left out.

    Args:
        damaged: where given, the positions of unreadable stretches are put here and reading goes on behind them.

    Raises:
        DamagedArtifact: an unreadable record is followed by a readable one (unless ``damaged`` is given).
    """
    position = 0
    while position < len(data):
        if record := _record(data, position):
            yield record
            position = record.end
            continue
        after = _next(data, position + 1)
        if after is None:
            return
        if damaged is None:
            raise DamagedArtifact(f"bad checksum at byte {position}, with readable batches after it")
        damaged.append(position)
        position = after


def append(descriptor: int, start: int, record: bytes) -> int:
    """Write a record at ``start``, onto the disk, and return its end.

    When the disk is full the file is cut back to ``start`` as far as it lets itself be, and OSError is raised.
    """
    try:
        done = 0
        while done < len(record):
            done += os.pwrite(descriptor, record[done:], start + done)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, start)
        raise
    return start + len(record)


def read(path: Path) -> bytes:
    """The bytes of a log; empty where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _record(data: bytes, position: int) -> Record | None:
    body = position + HEAD
    if body > len(data):
        return None
    header = data[position : position + HEADER.size]
    magic, sequence, length, check = HEADER.unpack(header)
    if magic != MAGIC or CHECK.unpack(data[body - CHECK.size : body])[0] != zlib.crc32(header):
        return None
    payload = data[body : body + length]
    if len(payload) != length or zlib.crc32(payload) != check:
        return None
    with pa.ipc.open_stream(payload) as reader:
        return Record(sequence, reader.read_all(), position, body + length)


def _next(data: bytes, position: int) -> int | None:
    """Where the next readable record begins."""
    while (position := data.find(MAGIC, position)) >= 0:
        if _record(data, position):
            return position
        position += 1
    return None
