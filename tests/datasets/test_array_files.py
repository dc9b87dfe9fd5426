"""Arrays from files: what their heads promise is checked before memory is taken, and only wanted rows are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_image_files import network

from qkf_deploy.datasets import arrays
from qkf_deploy.datasets.images import load
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.limits import memory_limit, parse_size
from qkf_deploy.options import DataOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)


def head(shape: str, descr: str = "|u1", order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [None, 1, 5, 9])
def test_rows(tmp_path: Path, order: str, rows: int | None) -> None:
    np.save(tmp_path / "x.npy", np.asarray(PIXELS, order=order))
    np.savez_compressed(tmp_path / "x.npz", images=np.asarray(PIXELS, order=order), labels=np.arange(5))
    wanted = PIXELS[:rows]
    np.testing.assert_array_equal(load(tmp_path / "x.npy", network(3), limit=rows).array, wanted)
    given = load(tmp_path / "x.npz", network(3), limit=rows)
    np.testing.assert_array_equal(given.array, wanted)
    assert given.labels is not None
    np.testing.assert_array_equal(given.labels, np.arange(5)[:rows])


def test_wanted_rows_are_all_that_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((4000, 3, 8, 8), np.uint8))
    with memory_limit(2000):
        assert load(tmp_path / "x.npz", network(3), limit=10).array.shape == (10, 3, 8, 8)
        with pytest.raises(InputError, match=r"'images' takes 750 KiB of memory, the limit is 1\.953 KiB"):
            load(tmp_path / "x.npz", network(3))


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)


HOSTILE = {
    "promises 4 TiB": head("(4398046511104,)"),
    "more than 2**63": head("(9223372036854775807, 9223372036854775807)"),
    "negative": head("(-1, 3, 8, 8)") + bytes(192),
    "text": head("(2,)", "<U3") + bytes(24),
    "objects": head("(1,)", "|O") + b"cos\nsystem\n(S'true'\ntR.",
    "structure": head("(2,)", "[('a', '<i4')]"),
    "complex": head("(1, 3, 8, 8)", "<c16") + bytes(16 * 192),
    "cut off": head("(1, 3, 8, 8)") + bytes(100),
    "no head": b"\x93NUMPY\x01\x00\xff\xff",
    "version": b"\x93NUMPY\x09\x00" + bytes(100),
    "code": head("__import__('os').getpid()"),
    "nested": head("(" * 3000),
    "empty": b"",
    "nothing": b"nothing",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.npy").write_bytes(HOSTILE[name])
    archive(tmp_path / "x.npz", images__npy=HOSTILE[name])
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        with pytest.raises(InputError) as caught:
            load(path, network(3))
        assert str(path) in str(caught.value)


def test_archives_that_are_none(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, images=PIXELS)
    data = whole.getvalue()
    path = tmp_path / "x.npz"
    archive(path, readme__txt=b"hello")
    with pytest.raises(InputError, match="members that are no arrays"):
        arrays.npz_names(path)
    archive(path)
    with pytest.raises(InputError, match="no arrays"):
        load(path, network(3))
    rng = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert load(path, network(3)).array.shape == PIXELS.shape
        except InputError:
            continue


@pytest.mark.parametrize("kind", ["i8", "u4", "i1"])
def test_whole_numbers_that_are_no_bytes_are_refused_before_anything_runs(tmp_path: Path, kind: str) -> None:
    """Of every sample alike, so not an error of each."""
    np.savez(tmp_path / "x.npz", images=PIXELS.astype(kind), labels=np.arange(5))
    with pytest.raises(InputError, match="images of type"):
        open_dataset(tmp_path / "x.npz", network(3), DataOptions())


LABELS = {
    "text": np.array(list("abcde")),
    "missing": np.array([0, 1, np.nan, 1, 1]),
    "halves": np.full(5, 0.5),
    "negative": np.array([0, 1, 2, 3, -1]),
    "huge": np.full(5, 2**64 - 1, np.uint64),
    "too few": np.arange(4),
    "two axes": np.zeros((5, 10), np.int64),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_no_class_indices(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=LABELS[name])
    with pytest.raises(InputError, match="labels"):
        load(tmp_path / "x.npz", network(3))


@pytest.mark.parametrize("text", ["", "4X", "-1", "1.5G", "0", "9" * 40, "٣G"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_sizes() -> None:
    assert [parse_size(t) for t in ("7", "2k", "3M", "4G", "1T")] == [7, 2048, 3 << 20, 4 << 30, 1 << 40]
