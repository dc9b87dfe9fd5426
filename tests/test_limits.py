"""Files that ask for more memory or time than the limits allow are refused at once; within the limits they are read."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import qkf_deploy as qd
from qkf_deploy.bundle import save_graph, to_bytes
from qkf_deploy.converters.torch.checkpoint import read_state_dict
from qkf_deploy.errors import InputError, QkfError
from qkf_deploy.hw_models.toml_file import parse_toml, read_toml
from qkf_deploy.ir import Graph, GraphBuilder, Operand, View
from qkf_deploy.limits import memory_limit
from qkf_deploy.ops import Conv, Input, Output, Sum
from qkf_deploy.runs import database
from qkf_deploy.runs.file import read_run

_SECONDS = 3.0


def large_sum(n: int) -> Graph:
    """A network of one node whose file has a thousand bytes, over an input of n x n."""
    build = GraphBuilder()
    build.add("input", Input((1, n, n), "frames", high=1))
    build.add("sum", Sum((1, 2)), ["input"])
    build.add("output", Output(), ["sum"])
    return build.build(time_steps=1, input_encoding="frames", arithmetic="integer")


def large_view(n: int) -> Graph:
    build = GraphBuilder()
    build.add("input", Input((1, n, n), "frames", high=1))
    turned = Operand("input", View.of((1, n, n), (0, 2, 1), (1, n, n)))
    one = {"weight": np.ones((1, 1, 1, 1), np.int8)}
    build.add("conv", Conv((1, 1), (0, 0), (1, 1), weight_bits=8), [turned], one)
    build.add("output", Output(), ["conv"])
    return build.build(time_steps=1, input_encoding="frames", arithmetic="integer")


def sparse(size: int) -> Callable[[Path], None]:
    """A file whose size is only claimed: nothing of it is on the disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def sparse_safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**29], "data_offsets": [0, 2**31]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 2**31)


def stride_zero(path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**6, 10**5)}, path)


def unpacking(path: Path) -> None:
    """A checkpoint whose storage is packed zeros."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if not name.endswith("data/0"):
                new.writestr(name, old.read(name))
                continue
            with new.open(name, "w", force_zip64=True) as member:
                for _ in range(5):
                    member.write(bytes(2**24))


def long_head(path: Path) -> None:
    db = database.new(path)
    db.execute("INSERT INTO run VALUES (0, '', '', 1, ?, '[]')", ("[" * 2**26,))
    db.execute("COMMIT")
    db.close()


BOMBS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "qkf: 2^20 x 2^20": (lambda p: save_graph(large_sum(2**20), p), qd.load),
    "qkf: a turned view": (lambda p: save_graph(large_view(30_000), p), qd.load),
    "qkf: sparse": (sparse(2**31), qd.load),
    "nir: sparse": (sparse(2**31), qd.import_nir),
    "checkpoint: sparse": (sparse(2**31), read_state_dict),
    "checkpoint: sparse safetensors": (sparse_safetensors, read_state_dict),
    "checkpoint: stride 0": (stride_zero, read_state_dict),
    "run: 64 MB of JSON": (long_head, read_run),
}


@pytest.mark.parametrize(("make", "read"), BOMBS.values(), ids=BOMBS)
def test_refused_at_once(make: Callable[[Path], None], read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "file"
    make(path)
    started = time.process_time()
    with pytest.raises(InputError, match="of memory, the limit is") as caught:
        read(path)
    assert time.process_time() - started < _SECONDS
    assert "--memory" in (caught.value.hint or "")


def test_a_packed_checkpoint(tmp_path: Path) -> None:
    unpacking(tmp_path / "net.pth")
    assert (tmp_path / "net.pth").stat().st_size < 2**21
    with memory_limit("64M"), pytest.raises(InputError, match="the archive takes"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize("read", [read_run, read_toml, read_state_dict, qd.load, qd.import_nir])
def test_devices_are_no_files(read: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match=r"not a regular file|no such file"):
        read(Path("/dev/zero"))


TOML = {
    "a key of 200 kB": "a." * 100_000 + "a = 1",
    "a number of 5,000 digits": "a = " + "9" * 5_000,
    "a number of 3,990 digits is no number of ours": "a = 1e" + "9" * 3_990,
    "lists in lists": "a = " + "[" * 3_990,
}


@pytest.mark.parametrize("text", TOML.values(), ids=TOML)
def test_toml(text: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_toml(text, "file.toml").check_keys("", ["pj"])
    assert "file.toml:1" in str(caught.value)
    assert time.process_time() - started < _SECONDS


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    graph = large_sum(6_000)
    (tmp_path / "net.qkf").write_bytes(to_bytes(graph))
    with pytest.raises(InputError, match="a value of the shape"):
        qd.load(tmp_path / "net.qkf")
    save_file({"w": np.zeros(10, np.float32)}, tmp_path / "net.safetensors")
    with memory_limit(79), pytest.raises(InputError):
        read_state_dict(tmp_path / "net.safetensors")
    assert read_state_dict(tmp_path / "net.safetensors").state_dict["w"].numel() == 10
    with memory_limit("2G"), pytest.raises(InputError, match="no width proof"):  # read; a proof is missing in it
        qd.load(tmp_path / "net.qkf")


@pytest.mark.parametrize("field", ["padding", "stride", "dilation"])
@pytest.mark.parametrize("size", [2**16, 2**31, 2**62, 2**63, 2**70])
def test_windows_of_any_size_are_refused_or_computed_at_once(field: str, size: int) -> None:
    """Shapes come from formulas: nothing is allocated per position or tap."""
    sizes = {"stride": 1, "padding": 1, "dilation": 1, field: size}
    started = time.process_time()
    try:
        op = Conv(*((sizes[name],) * 2 for name in ("stride", "padding", "dilation")))
        net = GraphBuilder()
        net.add("input", Input((1, 4, 4)))
        net.add("conv", op, ["input"], {"weight": np.ones((1, 1, 2, 2))})
        shape = net.nodes["conv"].type.shape
    except QkfError:
        shape = None
    assert time.process_time() - started < 1
    side = {"stride": 1, "padding": 2 * size + 3, "dilation": None}[field]
    assert shape is None or shape == (1, side, side)
