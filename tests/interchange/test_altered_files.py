"""A bit that flipped anywhere in a file is noticed, or changes nothing: never another network in silence.

A seeded sample of all bytes runs with the tests; ``QKF_ALL_FLIPS=1`` flips one bit of every byte (the NIR export in
four parts, which can run beside one another: ``-k "test_nir and 0"``, some minutes each).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from netbuild import Net

import qkf_deploy as qd
from qkf_deploy import bundle
from qkf_deploy.converters.nir import read
from qkf_deploy.converters.nir.export import nir_bytes
from qkf_deploy.converters.nir.partition import export_parts, load_parts
from qkf_deploy.converters.nir.safety import read_content
from qkf_deploy.errors import InputError, ProofError, QkfError
from qkf_deploy.ir import Graph, GraphBuilder, Widths
from qkf_deploy.ops import Input, Linear, Neuron, Output, Readout

_ALL = bool(os.environ.get("QKF_ALL_FLIPS"))
_SAMPLE = 100
_SECONDS = 2


def network() -> Graph:
    net = Net(0, (1, 3, 3), frames=True)
    net.lif("lif", net.conv("conv", "input", 2))
    net.head("lif", 2)
    graph = replace(net.build(), class_names=("cat", "dog"), notices=("a notice",), provenance={"source": "net.pth"})
    return qd.quantize(graph, 8)


def tiny() -> Graph:
    """The smallest network that has weights, a bias, a threshold and proofs: NIR files grow by kilobytes per node."""
    net = GraphBuilder()
    value = net.add("input", Input((2,), "frames"))
    value = net.add("fc", Linear(), [value], {"weight": np.array([[0.5, -1.0]]), "bias": np.array([0.25])})
    value = net.add("lif", Neuron(2.0, 0.5, 0.0), [value])
    value = net.add("readout", Readout(), [value])
    net.add("output", Output(), [value])
    return qd.quantize(net.build(time_steps=2), 8)


def places(data: bytes) -> Iterator[tuple[int, int]]:
    """(byte, bit) to flip: one bit of every byte, or of a sample of them."""
    rng = np.random.default_rng(0)
    few = sorted(rng.choice(len(data), min(_SAMPLE, len(data)), replace=False).tolist())
    for place in range(len(data)) if _ALL else few:
        yield place, int(rng.integers(8))


def flipped(data: bytes, place: int, bit: int) -> bytes:
    altered = bytearray(data)
    altered[place] ^= 1 << bit
    return bytes(altered)


def read_nir_here(path: Path) -> Graph:
    """The import without its child process: many flips in one child here."""
    read.read_isolated = read_content
    return read.import_nir(path)


def in_children(count: int, call: Callable[[int], bytes | None], expected: bytes) -> list[str]:
    """What became of each of ``count`` files: ``same``, ``refused``, ``other`` or ``error``.

    One child works through them until the HDF5 library loops or crashes on one (that is a refusal: the importer runs it
    in a child too); the next goes on behind it.
    """
    found: list[str] = []
    while len(found) < count:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for index in range(len(found), count):
                    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
                    got = call(index)
                    os.write(writing, b"r" if got is None else b"s" if got == expected else b"o")
                os._exit(0)
            except BaseException:  # noqa: BLE001 - counted by the parent
                os.write(writing, b"e")
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            found += [{"r": "refused", "s": "same", "o": "other", "e": "error"}[chr(c)] for c in pipe.read()]
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            found.append("refused")
    return found


def outcome(load: Callable[[Path], Graph], path: Path) -> bytes | None:
    try:
        return bundle.to_bytes(load(path))
    except QkfError:
        return None


def test_qkf(tmp_path: Path) -> None:
    data, path = bundle.to_bytes(network()), tmp_path / "net.qkf"
    assert qd.load(Path(_written(path, data))).nodes
    found = {"same": 0, "refused": 0}
    for place, bit in places(data):
        got = outcome(qd.load, _written(path, flipped(data, place, bit)))
        assert got in (None, data), f"byte {place}: another network"
        found["refused" if got is None else "same"] += 1
    assert found["refused"] > 10 * found["same"]
    assert sum(found.values()) == (len(data) if _ALL else min(_SAMPLE, len(data)))


def imported(path: Path, expected: bytes) -> bytes | None:
    """What the import gives, as a `.qkf` file; ``None`` where it refuses. Bytes as written need no second reading."""
    try:
        stored = read_content(path, stock_only=False).sidecar
    except QkfError:
        return None
    same = stored is not None and stored.tobytes() == expected
    return expected if same else outcome(read_nir_here, path)


_PARTS = 4


@pytest.mark.parametrize("part", range(_PARTS))
def test_nir(part: int, tmp_path: Path) -> None:
    graph, path = tiny(), tmp_path / "net.nir"
    data, expected = nir_bytes(graph), bundle.to_bytes(graph)
    assert outcome(qd.import_nir, _written(path, data)) == expected
    chosen = list(places(data))[part::_PARTS]
    found = in_children(len(chosen), lambda i: imported(_written(path, flipped(data, *chosen[i])), expected), expected)
    assert len(found) == len(chosen)
    counts = {what: found.count(what) for what in set(found)}
    assert set(counts) <= {"refused", "same"}, counts
    if _ALL:
        sys.stderr.write(f"part {part} of {len(data)} bytes: {counts}\n")


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_descriptions_of_filters(bit: int, tmp_path: Path) -> None:
    """How an array is packed: its number of parameters, and what is behind it."""
    graph, path = tiny(), tmp_path / "net.nir"
    data, expected = nir_bytes(graph), bundle.to_bytes(graph)
    near = [i + j for i in range(len(data)) if data.startswith(b"deflate\0", i) for j in range(-8, 12)]
    assert near
    found = in_children(
        len(near), lambda i: outcome(read_nir_here, _written(path, flipped(data, near[i], bit))), expected
    )
    assert set(found) <= {"refused", "same"}


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("member", [b"version", b"qkf", b"node"])
def test_names_of_the_file_s_members(member: bytes, bit: int, tmp_path: Path) -> None:
    """Every bit of the entries behind the name that a member is found by."""
    graph, path = network(), tmp_path / "net.nir"
    data, expected = nir_bytes(graph), bundle.to_bytes(graph)
    place = data.index(member + b"\0")
    near = range(place, place + len(member))
    found = in_children(
        len(near), lambda i: outcome(read_nir_here, _written(path, flipped(data, near[i], bit))), expected
    )
    assert set(found) <= {"refused", "same"}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_one_threshold_in_a_sidecar(tmp_path: Path) -> None:
    path = _written(tmp_path / "net.nir", nir_bytes(network()))
    with h5py.File(path, "r+") as file:
        graph = file["qkf/graph"]
        content = graph[()].tobytes()
        theta = network()["lif"].params["theta"]
        place = content.index(theta.tobytes())
        graph[place] = content[place] ^ 1
    with pytest.raises(InputError, match="hash differs"):
        qd.import_nir(path)


def test_a_sidecar_that_is_gone(tmp_path: Path) -> None:
    path = _written(tmp_path / "net.nir", nir_bytes(network()))
    with h5py.File(path, "r+") as file:
        file.move("qkf", "pkf")
    with pytest.raises(InputError, match="sidecar that the file was written with is gone"):
        qd.import_nir(path)


def test_files_without_a_hash(tmp_path: Path) -> None:
    data = bundle.to_bytes(network()).replace(b'\\"sha256\\"', b'\\"sha255\\"')
    with pytest.raises(InputError, match="no hash of its content") as caught:
        qd.load(_written(tmp_path / "net.qkf", data))
    assert "write it again" in (caught.value.hint or "")


FALSE_PROOFS: dict[str, Callable[[Graph, Path], object]] = {
    "onnx": lambda graph, path: qd.export_onnx(graph, path),
    "nir": lambda graph, path: qd.export_nir(graph, path),
    "lava": lambda graph, path: qd.export_lava(graph, path),
}


@pytest.mark.parametrize("export", FALSE_PROOFS.values(), ids=FALSE_PROOFS)
def test_exporters_prove_again(export: Callable[[Graph, Path], object], tmp_path: Path) -> None:
    graph = network()
    narrow = replace(graph, widths={**graph.widths, "conv": Widths((0, 1), (0, 1))})
    with pytest.raises(ProofError, match="narrower than the proven") as caught:
        export(narrow, tmp_path / "out")
    assert caught.value.where == "conv"
    assert not list(tmp_path.iterdir())


def test_importers_prove_again(tmp_path: Path) -> None:
    """A sidecar whose hash fits and whose proof does not."""
    graph = network()
    narrow = bundle.to_bytes(replace(graph, widths={**graph.widths, "conv": Widths((0, 1), (0, 1))}))
    path = _written(tmp_path / "net.nir", nir_bytes(graph))
    with h5py.File(path, "r+") as file:
        del file["qkf/graph"]
        file["qkf"].create_dataset("graph", data=np.frombuffer(narrow, np.uint8))
    with pytest.raises(ProofError, match="narrower than the proven"):
        qd.import_nir(path)


@pytest.mark.parametrize("name", ["manifest.json", "network.qkf", "part000.nir"])
def test_parts_and_their_manifest(name: str, tmp_path: Path) -> None:
    """A bit in any file of a partitioned export, or another whole network in its place."""
    export_parts(network(), tmp_path / "parts")
    path = tmp_path / "parts" / name
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(data), 40).tolist():
        path.write_bytes(flipped(data, place, int(rng.integers(8))))
        with pytest.raises(QkfError) as caught:
            load_parts(tmp_path / "parts")
        assert name in str(caught.value)
    path.write_bytes(data)
    assert load_parts(tmp_path / "parts")[0].graph.nodes.keys() == network().nodes.keys()
    qd.save(tiny(), tmp_path / "parts" / "network.qkf")
    with pytest.raises(InputError, match="its hash differs"):
        load_parts(tmp_path / "parts")
