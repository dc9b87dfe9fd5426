"""The counts of one image as bytes: which classes each layer has, then their values; the static facts stay outside."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from qkf_deploy import limits
from qkf_deploy.errors import InputError
from qkf_deploy.ledger import COUNT_CLASSES, LayerRecord, Ledger

_CLASSES = tuple(COUNT_CLASSES)
#: Bit of a layer's mask that says that spikes per step follow its counts; the others are classes, in their order.
_STEPS = 63
_LEVEL = 1
_WORD = 8


def pack(ledger: Ledger) -> list[bytes]:
    """One blob per image.

    A blob is a zlib stream of the number of layers, then of a mask per layer (which classes follow, and spikes per
    step), then of all values in that order; all are 64-bit little-endian integers. Masks and values are stored byte
    plane by byte plane: counts are small, so most planes are zeros.
    """
    masks = np.array([_mask(layer) for layer in ledger], np.uint64)
    columns = [column for layer in ledger for column in _columns(layer)]
    values = np.stack(columns) if columns else np.zeros((0, ledger.images), np.int64)
    head = len(masks).to_bytes(_WORD, "little") + _planes(masks)
    return [zlib.compress(head + _planes(np.ascontiguousarray(v)), _LEVEL) for v in values.T]


def unpack(layers: Sequence[LayerRecord], blobs: Sequence[bytes], time_steps: int) -> tuple[LayerRecord, ...]:
    """The records of all images.

    Args:
        layers: static records, in the order of the ledger that was packed.
        blobs: of :func:`pack`, at least one, all of one network.
        time_steps: T.

    Raises:
        InputError: a blob that is damaged or of another network, or counts beyond the memory limit.
    """
    start = _WORD * (1 + len(layers))
    first = _inflated(blobs[0], start, whole=False)
    if int.from_bytes(first[:_WORD], "little") != len(layers):
        raise InputError("the counts are of another network")
    masks = _from_planes(first[_WORD:]).tolist()
    wanted = [_names(mask) for mask in masks]
    steps = [bool(mask >> _STEPS) for mask in masks]
    size = sum(len(names) + time_steps * has for names, has in zip(wanted, steps, strict=True))
    limits.check(_WORD * size * len(blobs), f"the counts of {len(blobs):,} images")
    values = np.empty((size, len(blobs)), np.int64)
    for image, blob in enumerate(blobs):
        found = _inflated(blob, start + _WORD * size)
        if found[:start] != first:
            raise InputError("the counts of two images are of different networks")
        values[:, image] = _from_planes(found[start:]).view(np.int64)
    rows = iter(values)
    records: list[LayerRecord] = []
    for layer, names, has in zip(layers, wanted, steps, strict=True):
        counts = {name: next(rows) for name in names}
        records.append(layer.with_counts(counts, np.stack([next(rows) for _ in range(time_steps)]) if has else None))
    return tuple(records)


def _mask(layer: LayerRecord) -> int:
    return sum(1 << _CLASSES.index(name) for name in layer.counts) | (layer.spikes_per_step is not None) << _STEPS


def _columns(layer: LayerRecord) -> list[np.ndarray]:
    counts = [layer.counts[name] for name in _CLASSES if name in layer.counts]
    return [*counts, *(layer.spikes_per_step if layer.spikes_per_step is not None else ())]


def _names(mask: int) -> list[str]:
    if mask >> len(_CLASSES) & (1 << _STEPS - len(_CLASSES)) - 1:
        raise InputError("counts of a class that this version does not know", hint="update qkf-deploy")
    return [name for bit, name in enumerate(_CLASSES) if mask >> bit & 1]


def _planes(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(-1, 8).T.tobytes()


def _from_planes(data: bytes) -> np.ndarray:
    planes = np.frombuffer(data, np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view("<u8").ravel().astype(np.uint64, copy=False)


def _inflated(blob: bytes, size: int, whole: bool = True) -> bytes:
    """The first bytes of a zlib stream; of a ``whole`` one, all of them."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(blob, size + 1) if whole else stream.decompress(blob, size)
    except zlib.error as error:
        raise InputError("damaged counts") from error
    if len(data) != size or (whole and not stream.eof):
        raise InputError("damaged counts")
    return data


def same(stored: bytes, new: bytes) -> bool:
    """True if two blobs hold the same counts; the new one is our own."""
    if stored == new or not stored or not new:
        return stored == new
    data = zlib.decompress(new)
    try:
        return zlib.decompressobj().decompress(stored, len(data) + 1) == data
    except zlib.error as error:
        raise InputError("damaged counts") from error
