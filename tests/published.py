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


def random_events(count: int, width: int = 128, height: int = 128, seed: int = 0) -> dict[str, np.ndarray]:
    """Events in order of time."""
    rng = np.random.default_rng(seed)
    return {
        "t": np.sort(rng.integers(1000, 1_300_000, count)),
        "x": rng.integers(0, width, count),
        "y": rng.integers(0, height, count),
        "p": rng.integers(0, 2, count),
    }


def aedat2(events: dict[str, np.ndarray]) -> bytes:
    """As CIFAR10-DVS: addresses of a DVS128, big-endian, behind jAER's comments."""
    head = (
        b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
        b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
        b"# Timestamps tick is 1 us\r\n# created Thu Dec 03 19:30:00 CST 2015\r\n"
    )
    address = (127 - events["x"]) << 8 | (127 - events["y"]) << 1 | (1 - events["p"])
    return head + np.stack([address, events["t"]], axis=1).astype(">u4").tobytes()


def aedat3(events: dict[str, np.ndarray], packet: int = 300) -> bytes:
    """As DVS128 Gesture: packets of polarity events, others between them."""
    out = bytearray(
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-07-05 11:10:23\r\n#!END-HEADER\r\n"
    )
    for start in range(0, len(events["t"]), packet):
        t, x, y, p = (events[k][start : start + packet].astype(np.int64) for k in ("t", "x", "y", "p"))
        same = (t >> 31) == (t[0] >> 31)
        for kept in (same, ~same):
            if kept.any():
                n, overflow = int(kept.sum()), int(t[kept][0] >> 31)
                data = np.stack([x[kept] << 17 | y[kept] << 2 | p[kept] << 1 | 1, t[kept] & 0x7FFFFFFF], axis=1)
                out += struct.pack("<HHIIIIII", 1, 1, 8, 4, overflow, n, n, n) + data.astype("<u4").tobytes()
        out += struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)  # a special event
    return bytes(out)


def atis(events: dict[str, np.ndarray]) -> bytes:
    """As N-MNIST and N-Caltech101."""
    t, x, y, p = (events[k].astype(np.int64) for k in ("t", "x", "y", "p"))
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8).tobytes()
