"""File formats of event cameras, each read as the field's tools read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from qkf_deploy import limits
from qkf_deploy.datasets import arrays
from qkf_deploy.datasets.events.recording import Events
from qkf_deploy.errors import InputError

#: Memory per byte of a file of 5 to 8 bytes an event: four int64, and what is made on the way.
_BYTES_PER_BYTE = 16
_HEADER_LINES = 10_000
_PACKET = np.dtype(
    [("type", "<u2"), ("source", "<u2"), ("size", "<u4"), ("offset", "<u4"), ("overflow", "<u4"),
     ("capacity", "<u4"), ("number", "<u4"), ("valid", "<u4")]
)  # fmt: skip
_POLARITY = 1
_FIELDS = ("t", "x", "y", "p")


def read_aedat2(path: Path) -> Events:
    """AEDAT 2.0 of a DVS128: pairs of big-endian address and time stamp behind lines of comment.

    Rows, columns and polarity are turned as SpikingJelly turns CIFAR10-DVS, which is what networks are trained on:
    x = 127 - (address >> 8 & 127), y = 127 - (address >> 1 & 127), p = 1 - (address & 1).

    Raises:
        InputError: another version, a torn pair, or addresses of another camera.
    """
    data = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE)
    body = data[_after_comments(data, path, b"#!AER-DAT2") :]
    if len(body) % 8:
        raise InputError(f"is cut off: {len(body)} bytes are not whole events of 8", where=str(path))
    address, t = np.frombuffer(body, ">u4").reshape(-1, 2).astype(np.int64).T
    if len(address) and int(address.max()) >= 2**16:
        raise InputError("has addresses beyond a DVS128's", where=str(path), hint="is it CIFAR10-DVS as published?")
    return Events(t, 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1))


def read_aedat3(path: Path) -> Events:
    """AEDAT 3.1: packets of events; those of polarity are read, as in DVS128 Gesture.

    Raises:
        InputError: another version, or packets that do not fit the file.
    """
    data = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE)
    place = _after_comments(data, path, b"#!AER-DAT3.1")
    found: list[np.ndarray] = []
    while place < len(data):
        if place + _PACKET.itemsize > len(data):
            raise InputError("is cut off inside the head of a packet", where=str(path))
        head = np.frombuffer(data, _PACKET, 1, place)[0]
        place += _PACKET.itemsize
        size, capacity, number = int(head["size"]), int(head["capacity"]), int(head["number"])
        if place + size * capacity > len(data) or number > capacity:
            raise InputError("a packet does not fit the file", where=str(path))
        if head["type"] == _POLARITY and number:
            if size < 8:
                raise InputError(f"polarity events of {size} bytes", where=str(path))
            rows = np.frombuffer(data, np.uint8, size * number, place).reshape(number, size)[:, :8]
            address, t = np.ascontiguousarray(rows).view("<u4").astype(np.int64).T
            found.append(np.stack([t | int(head["overflow"]) << 31, address >> 17 & 0x7FFF, address >> 2 & 0x7FFF,
                                   address >> 1 & 1]))  # fmt: skip
        place += size * capacity
    return Events(*np.concatenate(found, axis=1)) if found else Events(*np.zeros((4, 0), np.int64))


def read_atis(path: Path) -> Events:
    """N-MNIST's and N-Caltech101's `.bin`: five bytes an event.

    Column, row, and a number of one bit polarity and 23 bits time. Row 240 marks that the clock went on by 2^13 µs
    (G. Orchard's event-Python); neither data set has an event there.

    Raises:
        InputError: a torn event.
    """
    data = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE)
    if len(data) % 5:
        raise InputError(f"is cut off: {len(data)} bytes are not whole events of 5", where=str(path))
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64).T
    overflow = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(overflow) << 13)
    kept = ~overflow
    return Events(t[kept], x[kept], y[kept], high[kept] >> 7)


def read_arrays(path: Path) -> Events:
    """The `.npz` that SpikingJelly writes of any recording: arrays t, x, y and p.

    Raises:
        InputError: other arrays, or of different length.
    """
    found = [arrays.Rows(path, name).whole for name in _FIELDS]
    alike = len({array.shape for array in found}) == 1 and found[0].ndim == 1
    if not alike or any(array.dtype.kind not in "iub" for array in found):
        raise InputError("t, x, y and p are not whole numbers, one of each per event", where=str(path))
    if any(array.dtype.kind == "u" and len(array) and array.max() >= 2**63 for array in found):
        raise InputError("has numbers beyond 63 bits", where=str(path))
    return Events(*(array.astype(np.int64) for array in found))


def _after_comments(data: bytes, path: Path, magic: bytes) -> int:
    """Where the events begin: behind the lines that begin with ``#``."""
    if not data.startswith(magic):
        raise InputError(f"does not begin with {magic.decode()}", where=str(path))
    place = 0
    for _ in range(_HEADER_LINES):
        if data[place : place + 1] != b"#":
            return place
        end = data.find(b"\n", place)
        if end < 0:
            raise InputError("has a head without an end", where=str(path))
        line, place = data[place:end], end + 1
        if line.rstrip(b"\r") == b"#!END-HEADER":
            return place
    raise InputError(f"has a head of more than {_HEADER_LINES} lines", where=str(path))


def read_aedat(path: Path) -> Events:
    """AEDAT of either version, by its first line. Raises InputError as they do."""
    limits.regular_size(path)
    try:
        with path.open("rb") as file:
            begins = file.read(12)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return read_aedat3(path) if begins.startswith(b"#!AER-DAT3") else read_aedat2(path)


READERS: dict[str, Callable[[Path], Events]] = {".aedat": read_aedat, ".bin": read_atis, ".npz": read_arrays}
"""By the suffix of a file."""
