"""`.qkf` files: bit-identical round trip; hostile, damaged and foreign files are refused with one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from netbuild import Net, small_transformer
from safetensors import safe_open
from safetensors.numpy import save_file

import qkf_deploy as qd
from qkf_deploy.bundle import content_hash, load_graph, save_graph, to_bytes
from qkf_deploy.errors import GraphError, InputError, ProofError, QkfError
from qkf_deploy.ir import Graph
from qkf_deploy.writing import write_atomically

GRAPHS: dict[str, Callable[[], Graph]] = {
    "float": lambda: small_transformer(0),
    "folded": lambda: qd.fold(small_transformer(1)),
    "8 bits": lambda: qd.quantize(small_transformer(0), 8),
    "24 bits": lambda: qd.quantize(small_transformer(1), 24),
    "frames": lambda: qd.quantize(small_transformer(6, frames=True), 4),
    "fixed": lambda: qd.quantize(small_transformer(2), 8, input="fixed"),
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_round_trip_is_bit_identical(tmp_path: Path, make: Callable[[], Graph]) -> None:
    graph = replace(make(), class_names=("a", "ü", '"'), provenance={"source": "x.pth"}, notices=("one", "two"))
    save_graph(graph, tmp_path / "a.qkf")
    again = load_graph(tmp_path / "a.qkf")
    save_graph(again, tmp_path / "b.qkf")
    assert (tmp_path / "a.qkf").read_bytes() == (tmp_path / "b.qkf").read_bytes()
    assert list(again.nodes) == list(graph.nodes)
    for node in graph:
        other = again[node.name]
        assert (node.op, node.inputs, node.type, node.source) == (other.op, other.inputs, other.type, other.source)
        for key, array in node.params.items():
            assert other.params[key].dtype == array.dtype
            assert np.array_equal(other.params[key], array)
    for field in ("time_steps", "input_encoding", "arithmetic", "preprocessing", "class_names", "notices", "widths"):
        assert getattr(again, field) == getattr(graph, field)
    assert dict(again.provenance) == dict(graph.provenance)


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    graph = small_transformer(0)
    qd.save(graph, tmp_path / "net.qkf")
    with safe_open(tmp_path / "net.qkf", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("pool_conv/weight"), graph["pool_conv"].params["weight"])
        assert json.loads(file.metadata()["qkf"])["format"] == "qkf-graph/1"


def stored(tmp_path: Path, graph: Graph | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and tensors of a written graph, to be altered."""
    qd.save(graph or qd.quantize(tiny(), 8), tmp_path / "net.qkf")
    with safe_open(tmp_path / "net.qkf", framework="numpy") as file:
        return json.loads(file.metadata()["qkf"]), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


def test_a_file_from_before_an_attribute_was_added(tmp_path: Path) -> None:
    """It is read with the default, which is what the attribute's absence meant."""
    graph = qd.quantize(tiny(), 8)
    data, tensors = stored(tmp_path, graph)
    del node(data, "lif")["attributes"]["max_spikes"]
    write(tmp_path / "old.qkf", data, tensors)
    assert qd.load(tmp_path / "old.qkf")["lif"].op == graph["lif"].op
    del node(data, "lif")["attributes"]["decay_shift"]
    write(tmp_path / "old.qkf", data, tensors)
    with pytest.raises(QkfError, match="integer_neuron has the attributes"):
        qd.load(tmp_path / "old.qkf")


def write(path: Path, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """A file whose hash fits its content, as one who alters it on purpose writes it."""
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    save_file(tensors, path, metadata={"qkf": json.dumps({**data, "sha256": content_hash(data, tensors)})})


def tiny() -> Graph:
    net = Net(0, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif")
    return net.build()


def node(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(n for n in data["nodes"] if n["name"] == name)


def attribute(name: str, key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda data, tensors: node(data, name)["attributes"].update({key: value})


def top(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda data, tensors: data.update({key: value})


def field(name: str, key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda data, tensors: node(data, name).update({key: value})


def tensor(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict, dict[str, np.ndarray]], None]:
    return lambda data, tensors: tensors.update({key: change(tensors[key])})


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, np.ndarray]], None], str]] = {
    "format": (top("format", "qkf-graph/99"), "the graph has another format"),
    "no nodes": (top("nodes", []), "exactly one input node"),
    "nodes not a list": (top("nodes", 7), "a damaged graph"),
    "null nodes": (top("nodes", [None]), "a damaged graph"),
    "too many nodes": (top("nodes", [0] * 100_001), "more than 100000 nodes"),
    "time steps": (top("time_steps", 10**9), "time_steps is 1000000000"),
    "no time": (top("time_steps", 0), "time_steps is 0"),
    "time is text": (top("time_steps", "four"), "a damaged graph"),
    "encoding": (top("input_encoding", "magic"), "unknown encoding 'magic'"),
    "arithmetic": (top("arithmetic", "complex"), "unknown encoding 'direct' or arithmetic 'complex'"),
    "std zero": (top("preprocessing", {"mean": [0, 0], "std": [0, 1]}), "mean and std do not fit"),
    "std missing": (top("preprocessing", {"mean": [0, 0]}), "a damaged graph"),
    "mean nan": (top("preprocessing", {"mean": [float("nan"), 0], "std": [1, 1]}), "mean and std do not fit"),
    "unknown operator": (field("conv", "op", "eval"), "conv: unknown operator 'eval'"),
    "dunder operator": (field("conv", "op", "__class__"), "unknown operator '__class__'"),
    "extra attribute": (attribute("conv", "cmd", "rm -rf"), "conv has the attributes"),
    "stride zero": (attribute("conv", "stride", [0, 1]), "a window needs kernel, stride"),
    "negative padding": (attribute("conv", "padding", [-1, 1]), "padding of at least 0"),
    "groups zero": (attribute("conv", "groups", 0), "with 0 groups"),
    "attribute of another type": (attribute("conv", "stride", "ab"), "stride is 'ab', not a list"),
    "shift": (attribute("lif", "decay_shift", 10**12), "go from 0 to 32"),
    "decay": (attribute("lif", "decay_multiplier", 2**70), "at most 62 bits"),
    "fraction": (attribute("lif", "fraction_bits", -1), "go from 0 to 32"),
    "weight bits": (attribute("conv", "weight_bits", 3), "a weight has more than the 3 bits that the node claims"),
    "absurd weight bits": (attribute("conv", "weight_bits", 10**15), "weight_bits is 1000000000000000, from 2 to 32"),
    "carry": (attribute("lif", "carry", "stored"), "'leftover' go together"),
    "cycle": (field("conv", "inputs", [["lif", None]]), "reads a later node"),
    "dangling": (field("conv", "inputs", [["nowhere", None]]), "reads an unknown node"),
    "view": (field("conv", "inputs", [["input", [[99], [[0, 99]], [0], [99]]]]), "view does not fit"),
    "view that wraps": (
        field("conv", "inputs", [["input", [[2**32, 2**32 + 2**27], [[0, 2], [0, 16]], [0, 1], [2, 4, 4]]]]),
        "view does not fit",
    ),
    "view of text": (field("conv", "inputs", [["input", ["a", "b", "c", "d"]]]), "split is 'a', not a list"),
    "type": (field("conv", "type", [[3, 4, 4], "spike", "step", 1, 0]), "its operator says"),
    "kind": (field("conv", "type", [[3, 4, 4], "secret", "step", None, None]), "damaged graph"),
    "name twice": (lambda data, tensors: data["nodes"].append(node(data, "conv")), "two nodes have the same name"),
    "no tensor": (field("conv", "params", ["weight", "bias", "extra"]), "conv: the tensor 'extra' is missing"),
    "nan weights": (tensor("conv/weight", lambda w: np.full(w.shape, np.nan)), "values that are not finite"),
    "float weights": (
        tensor("conv/weight", lambda w: w.astype(np.float64)),
        "holds float64, not signed integers",
    ),
    "bool weights": (tensor("conv/weight", lambda w: w != 0), "values that are not finite numbers"),
    "weights too wide": (tensor("conv/weight", lambda w: w.astype(np.int64) * 2), "a weight has more than the 8 bits"),
    "weight shape": (tensor("conv/weight", lambda w: w[:, :1]), "does not fit input"),
    "theta shape": (tensor("lif/theta", lambda t: t[:2]), "threshold does not broadcast"),
    "bias shape": (tensor("conv/bias", lambda b: b[..., :1]), "fits neither"),
    "widths of nothing": (top("widths", {"ghost": [[0, 1], [0, 1], None]}), "a width proof of an unknown node"),
    "widths of text": (top("widths", {"conv": "wide"}), "a damaged graph"),
    "widths infinite": (top("widths", {"conv": [[0, float("inf")], [0, 1], None]}), "a damaged graph"),
    "bias overflow": (tensor("conv/bias", lambda b: np.full(b.shape, 2**62)), "narrower than the proven|62 bits"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_metadata(tmp_path: Path, change: Callable, message: str) -> None:
    data, tensors = stored(tmp_path)
    change(data, tensors)
    path = tmp_path / "hostile.qkf"
    write(path, data, tensors)
    with pytest.raises(QkfError, match=message) as caught:
        qd.load(path)
    assert str(path) in str(caught.value) or isinstance(caught.value, ProofError)
    assert "\n" not in caught.value.message


def test_deeply_nested_json(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1)}, tmp_path / "deep.qkf", metadata={"qkf": "[" * 200_000})
    with pytest.raises(InputError, match="a damaged graph"):
        qd.load(tmp_path / "deep.qkf")


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda p: None, "no such file"),
    "directory": (lambda p: p.mkdir(), "no such file"),
    "empty": (lambda p: p.write_bytes(b""), "not a .qkf file"),
    "text": (lambda p: p.write_text("hello\n" * 100), "not a .qkf file"),
    "huge header": (lambda p: p.write_bytes(b"\xff" * 8 + b"{}"), "not a .qkf file"),
    "plain safetensors": (lambda p: save_file({"w": np.zeros(3)}, p), "is a checkpoint, not a network"),
}


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_what_is_not_a_qkf_file(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.qkf"
    make(path)
    with pytest.raises(InputError, match=message):
        qd.load(path)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, keep: float) -> None:
    data = to_bytes(small_transformer(0))
    path = tmp_path / "short.qkf"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"not a \.qkf file"):
        qd.load(path)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """A byte changed anywhere: either a network that verifies and proves, or one sentence."""
    data = bytearray(to_bytes(qd.quantize(tiny(), 8)))
    rng, path, refused = np.random.default_rng(0), tmp_path / "flip.qkf", 0
    for _ in range(150):
        place, old = int(rng.integers(len(data))), 0
        old, data[place] = data[place], int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            qd.load(path)
        except QkfError:
            refused += 1
        data[place] = old
    assert refused > 50


def test_broken_graphs_are_not_written(tmp_path: Path) -> None:
    graph = tiny()
    with pytest.raises(GraphError):
        qd.save(replace(graph, time_steps=0), tmp_path / "net.qkf")
    assert list(tmp_path.iterdir()) == []


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.qkf"
    write_atomically(path, b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="cannot write here: No space left on device"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["net.qkf"]
    assert path.read_bytes() == b"old"


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere" / "net.qkf", tmp_path / "file" / "net.qkf"):
        with pytest.raises(InputError, match="cannot write here"):
            qd.save(tiny(), path)
    (tmp_path / "folder.qkf").mkdir()
    with pytest.raises(InputError, match="cannot write here"):
        qd.save(tiny(), tmp_path / "folder.qkf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.qkf"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    qd.save(tiny(), tmp_path / "net.qkf")
    assert os.stat(tmp_path / "net.qkf").st_mode & 0o777 == 0o644
