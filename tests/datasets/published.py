"""Small files in the exact layout of published data sets, written here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _Writer:
    """Protocol 2 as Python 2's cPickle wrote it: byte strings, arrays by numpy's own reduction of that time."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.count = 0

    def put(self, code: bytes) -> None:
        """An instruction whose result is remembered."""
        self.out += code
        self.out += b"q" + bytes([self.count]) if self.count < 256 else b"r" + struct.pack("<I", self.count)
        self.count += 1

    def text(self, value: bytes) -> None:
        size = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        self.put(size + value)

    def number(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        else:
            self.out += b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)

    def array(self, value: np.ndarray) -> None:
        for code in (b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\x00\x85"):
            self.put(code)
        self.text(b"b")
        self.put(b"\x87")
        self.put(b"R")
        self.out += b"(K\x01"
        for size in value.shape:
            self.number(size)
        self.put(b"\x86")
        self.put(b"cnumpy\ndtype\n")
        self.text(value.dtype.str[1:].encode())
        self.put(b"K\x00K\x01\x87")
        self.put(b"R")
        self.out += b"(K\x03"
        self.text(b"|")
        self.put(b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t")
        self.out += b"b\x89"
        self.text(value.tobytes())
        self.put(b"t")
        self.out += b"b"

    def items(self, values: Sequence[Any]) -> None:
        self.put(b"]")
        for start in range(0, len(values), 1000):  # cPickle's batches
            self.out += b"("
            for value in values[start : start + 1000]:
                self.anything(value)
            self.out += b"e"

    def anything(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self.array(value)
        elif isinstance(value, list):
            self.items(value)
        elif isinstance(value, int):
            self.number(value)
        else:
            self.text(value.encode())


def cifar_pickle(value: dict[str, Any]) -> bytes:
    """A dictionary as a published batch holds it."""
    writer = _Writer()
    writer.put(b"}")
    writer.out += b"("
    for key, item in value.items():
        writer.text(key.encode())
        writer.anything(item)
    return bytes(writer.out + b"u.")


def cifar_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_cifar(root: Path, classes: int, form: str, count: int = 30) -> dict[str, tuple[np.ndarray, list[int]]]:
    """A folder in one of the four forms; images and labels by file."""
    root.mkdir(parents=True)
    ten = classes == 10
    train = [f"data_batch_{i}" for i in range(1, 6)] if ten else ["train"]
    names = list(CIFAR10) if ten else [f"thing_{i:02d}" for i in range(100)]
    made = {}
    for seed, name in enumerate([*train, "test_batch" if ten else "test"]):
        images = cifar_images(count, seed)
        known = np.random.default_rng(100 + seed).integers(0, classes, count).tolist()
        coarse = [k // 5 for k in known]
        if form == "python":
            own: dict[str, Any] = {"labels": known} if ten else {"fine_labels": known, "coarse_labels": coarse}
            content = {"batch_label": "a batch", **own, "data": images.reshape(count, -1),
                       "filenames": [f"{name}_{i}.png" for i in range(count)]}  # fmt: skip
            (root / name).write_bytes(cifar_pickle(content))
            made[name] = images, known
        else:
            heads = [known] if ten else [coarse, known]
            records = np.concatenate([np.array(heads, np.uint8).T, images.reshape(count, -1)], axis=1)
            (root / f"{name}.bin").write_bytes(records.tobytes())
            made[f"{name}.bin"] = images, known
    if form == "python":
        key, file = ("label_names", "batches.meta") if ten else ("fine_label_names", "meta")
        (root / file).write_bytes(cifar_pickle({"num_vis": 3072, key: names}))
    else:
        (root / ("batches.meta.txt" if ten else "fine_label_names.txt")).write_text("\n".join(names) + "\n\n")
    return made
