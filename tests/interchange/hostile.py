"""Makers of hostile files: each takes a path and writes something no reader may trust."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.numpy import save_file
from zoo import ZOO

from qkf_deploy import bundle
from qkf_deploy.converters.nir.export import nir_bytes
from qkf_deploy.converters.onnx.export import build_onnx
from qkf_deploy.ir import Graph
from qkf_deploy.passes.quantize import QuantizeOptions, quantize

Make = Callable[[Path], None]
TEXT = h5py.string_dtype()


def network() -> Graph:
    return ZOO["convnet"](np.random.default_rng(0))


def integer() -> Graph:
    return quantize(network(), QuantizeOptions())


def raw(data: bytes) -> Make:
    return lambda path: path.write_bytes(data) and None


def cut(source: Callable[[], bytes], part: float) -> Make:
    def make(path: Path) -> None:
        data = source()
        path.write_bytes(data[: int(len(data) * part)])

    return make


def flipped(source: Callable[[], bytes], seed: int, count: int = 24) -> Make:
    def make(path: Path) -> None:
        data, rng = bytearray(source()), np.random.default_rng(seed)
        for i in rng.integers(0, len(data), count):
            data[i] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)

    return make


# --- NIR -------------------------------------------------------------------------------------------------------------


def stock() -> bytes:
    return nir_bytes(network())


def edited(change: Callable[[Any], None], keep_sidecar: bool = False) -> Make:
    """A good file, changed; without sidecar unless that is what is attacked."""

    def make(path: Path) -> None:
        path.write_bytes(stock())
        with h5py.File(path, "r+") as file:
            if not keep_sidecar:
                del file["qkf"], file.attrs["qkf_sidecar"]
            change(file)

    return make


def node(file: Any, part: str) -> Any:
    return file["node/nodes"][next(n for n in file["node/nodes"] if part in n)]


def put(part: str, key: str, value: Any, **options: Any) -> Make:
    """A good file with one parameter of one node replaced."""

    def change(file: Any) -> None:
        group = node(file, part)
        if key in group:
            del group[key]
        group.create_dataset(key, data=value, **options)

    return edited(change)


def edges(change: Callable[[list[list[bytes]]], Any]) -> Make:
    def replace(file: Any) -> None:
        rows = change([list(r) for r in file["node/edges"][()]])
        del file["node/edges"]
        file["node"].create_dataset("edges", data=rows, dtype=TEXT if isinstance(rows[0][0], bytes) else None)

    return edited(replace)


def named(file: Any, part: str) -> bytes:
    return next(n for n in file["node/nodes"] if part in n).encode()


def back_edge(file: Any) -> None:
    rows = [list(r) for r in file["node/edges"][()]]
    rows.append([named(file, "head"), named(file, "stem_conv")])
    del file["node/edges"]
    file["node"].create_dataset("edges", data=rows, dtype=TEXT)


def huge_unwritten(file: Any) -> None:
    group = node(file, "stem_conv")
    del group["weight"]
    group.create_dataset("weight", shape=(8, 2, 20000, 10000), dtype="f4", chunks=(1, 1, 100, 100))


def compressed_zeros(file: Any) -> None:
    group = node(file, "stem_conv")
    del group["weight"]
    big = group.create_dataset(
        "weight", shape=(750, 2**20), dtype="f4", chunks=(1, 2**20), compression="gzip", compression_opts=9
    )
    row = np.zeros(2**20, np.float32)
    for i in range(0, 750, 250):
        big[i] = row


def outer_storage(file: Any) -> None:
    group = node(file, "stem_conv")
    del group["bias"]
    group.create_dataset("bias", shape=(8,), dtype="f4", external=[("/etc/hostname", 0, 32)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(8,), dtype="f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", shape=(8,))
    group = node(file, "stem_conv")
    del group["bias"]
    group.create_virtual_dataset("bias", layout)


def deep(file: Any) -> None:
    group = node(file, "stem_conv")
    for _ in range(40):
        for key in list(group):
            del group[key]
        group.create_dataset("type", data="NIRGraph", dtype=TEXT)
        group.create_dataset("edges", data=[[b"a", b"a"]], dtype=TEXT)
        group = group.create_group("nodes").create_group("a")
    group.create_dataset("type", data="Input", dtype=TEXT)


def crowd(file: Any) -> None:
    for i in range(20_001):
        file["node/nodes"].create_group(f"extra{i}")


def links(kind: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file["node/nodes"]["link"] = kind(file)

    return change


def into_itself(file: Any) -> None:
    inner = file["node/nodes"].create_group("loop")
    inner.create_dataset("type", data="NIRGraph", dtype=TEXT)
    inner.create_dataset("edges", data=[[b"x", b"x"]], dtype=TEXT)
    inner["nodes"] = file["node/nodes"]


def sidecar(change: Callable[[Any], None]) -> Make:
    return edited(lambda file: change(file["qkf"]), keep_sidecar=True)


def set_graph(data: np.ndarray) -> Callable[[Any], None]:
    def change(group: Any) -> None:
        del group["graph"]
        group.create_dataset("graph", data=data)

    return change


def many_edges_to_one_long_name(file: Any) -> None:
    """Variable-length strings may share storage; here each is long, so reading all at once would be large."""
    del file["node/edges"]
    file["node"].create_dataset("edges", data=[[b"x" * 100_000, b"y"]] * 200, dtype=TEXT)


NIR: dict[str, Make] = {
    "empty": raw(b""),
    "text": raw(b"this is not a network\n" * 50),
    "zeros": raw(bytes(4096)),
    "signature only": raw(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    **{f"cut at {p}": cut(stock, p) for p in (0.05, 0.5, 0.9, 0.999)},
    "no node group": edited(lambda f: f.__delitem__("node")),
    "node is an array": edited(lambda f: (f.__delitem__("node"), f.create_dataset("node", data=[1.0]))),
    "single node": edited(lambda f: (f.__delitem__("node/type"), f["node"].create_dataset("type", data="LIF"))),
    "soft link": edited(links(lambda f: h5py.SoftLink("/node/nodes"))),
    "dangling soft link": edited(links(lambda f: h5py.SoftLink("/nowhere"))),
    "external link": edited(links(lambda f: h5py.ExternalLink("/etc/passwd", "/"))),
    "hard link to a node": edited(links(lambda f: node(f, "stem_conv"))),
    "graph inside itself": edited(into_itself),
    "storage in another file": edited(outer_storage),
    "virtual array": edited(virtual),
    "6 GB never written": edited(huge_unwritten),
    "3 GB of compressed zeros": edited(compressed_zeros),
    "40 graphs deep": edited(deep),
    "20001 nodes": edited(crowd),
    "weights NaN": put("stem_conv", "weight", np.full((8, 2, 3, 3), np.nan, np.float32)),
    "threshold infinite": put("stem_lif", "v_threshold", np.full((8, 6, 6), np.inf, np.float32)),
    "weights of text": put("stem_conv", "weight", [b"a", b"b"], dtype=TEXT),
    "weights complex": put("stem_conv", "weight", np.zeros((8, 2, 3, 3), np.complex64)),
    "weights compound": put("stem_conv", "weight", np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
    "weights of another rank": put("stem_conv", "weight", np.zeros((8, 2), np.float32)),
    "weights of other channels": put("stem_conv", "weight", np.zeros((8, 5, 3, 3), np.float32)),
    "weights empty": put("stem_conv", "weight", np.zeros((0, 2, 3, 3), np.float32)),
    "null array": put("stem_conv", "weight", h5py.Empty("f4")),
    "bias of another length": put("stem_conv", "bias", np.ones(3, np.float32)),
    "stride zero": put("stem_conv", "stride", np.array([0, 1])),
    "stride fractional": put("stem_conv", "stride", np.array([1.5, 1.0])),
    "dilation negative": put("stem_conv", "dilation", np.array([-1, 1])),
    "groups zero": put("stem_conv", "groups", 0),
    "padding of a million": put("stem_conv", "padding", np.array([1_000_000, 1_000_000])),
    "padding of 2^60": put("stem_conv", "padding", np.array([2**60, 2**60])),
    "padding unknown": put("stem_conv", "padding", "circular", dtype=TEXT),
    "time constant zero": put("stem_lif", "tau", np.zeros((8, 6, 6), np.float32)),
    "time constants of another shape": put("stem_lif", "tau", np.full((8, 5, 6), 2e-4, np.float32)),
    "one time constant below a step": put(
        "stem_lif", "tau", np.linspace(5e-5, 3e-4, 288, dtype=np.float32).reshape(8, 6, 6)
    ),
    "input of 10^12": put("input", "shape", np.array([10**6, 10**6])),
    "input negative": put("input", "shape", np.array([-2, 6, 6])),
    "input without axes": put("input", "shape", np.zeros(0, np.int64)),
    "flatten out of range": put("head", "start_dim", 9),
    "type missing": edited(lambda f: node(f, "stem_lif").__delitem__("type")),
    "type unknown": put("stem_lif", "type", "__import__('os')", dtype=TEXT),
    "type a number": put("stem_lif", "type", 7),
    "threshold missing": edited(lambda f: node(f, "stem_lif").__delitem__("v_threshold")),
    "metadata of 2 MiB": edited(
        lambda f: node(f, "stem_lif").require_group("metadata").create_dataset("x", data="x" * 2**21, dtype=TEXT)
    ),
    "edge to nowhere": edges(lambda rows: [*rows, [b"nowhere", rows[0][1]]]),
    "edge twice": edges(lambda rows: [*rows, rows[0]]),
    "edges in threes": edges(lambda rows: [[*r, b"x"] for r in rows]),
    "edges of numbers": edges(lambda rows: [[1, 2], [3, 4]]),
    "edges with long names": edited(many_edges_to_one_long_name),
    "no edges": edges(lambda rows: rows[:1]),
    "cycle": edited(back_edge),
    "itself": edges(lambda rows: [*rows, [rows[1][1], rows[1][1]]]),
    "sidecar of zeros": sidecar(set_graph(np.zeros(100, np.uint8))),
    "sidecar empty": sidecar(set_graph(np.zeros(0, np.uint8))),
    "sidecar of floats": sidecar(set_graph(np.zeros(10))),
    "sidecar of another version": sidecar(lambda g: g.attrs.__setitem__("version", "qkf-nir/99")),
    "sidecar of another network": sidecar(lambda g: g.attrs.__setitem__("stock_sha256", "0" * 64)),
    "sidecar without graph": sidecar(lambda g: g.__delitem__("graph")),
}
NIR_FLIPPED: dict[str, Make] = {f"flipped {seed}": flipped(stock, seed) for seed in range(12)}


# --- .qkf ------------------------------------------------------------------------------------------------------------


def qkf() -> bytes:
    return bundle.to_bytes(integer())


def rewritten(
    change: Callable[[dict[str, Any], dict[str, np.ndarray]], None], graph: Callable[[], Graph] = network
) -> Make:
    """A good file whose JSON and tensors were changed."""

    def make(path: Path) -> None:
        path.write_bytes(bundle.to_bytes(graph()))
        with safe_open(path, framework="numpy") as file:
            data = json.loads(file.metadata()["qkf"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        change(data, tensors)
        sealed = {**data, "sha256": bundle.content_hash(data, tensors)}  # one who alters it on purpose makes it fit
        save_file(tensors, path, metadata={"qkf": json.dumps(sealed)})

    return make


def find(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(n for n in data["nodes"] if n["name"] == name)


def of_node(name: str, **fields: Any) -> Make:
    return rewritten(lambda d, t: find(d, name).update(fields))


def attribute(name: str, key: str, value: Any) -> Make:
    return rewritten(lambda d, t: find(d, name)["attributes"].update({key: value}))


def deep_json(path: Path) -> None:
    save_file({}, path, metadata={"qkf": "[" * 100_000 + "]" * 100_000})


def header(length: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + text


QKF: dict[str, Make] = {
    "empty": raw(b""),
    "text": raw(b"hello" * 100),
    **{f"cut at {p}": cut(qkf, p) for p in (0.01, 0.5, 0.999)},
    "header of 2^63": raw(header(2**63)),
    "header beyond the file": raw(header(10**6)),
    "no graph": lambda path: save_file({"x": np.zeros(3)}, path),
    "json deep": deep_json,
    "json list": lambda path: save_file({}, path, metadata={"qkf": "[]"}),
    "another format": rewritten(lambda d, t: d.update(format="qkf-graph/99")),
    "no nodes": rewritten(lambda d, t: d.update(nodes=[])),
    "nodes a number": rewritten(lambda d, t: d.update(nodes=7)),
    "node twice": rewritten(lambda d, t: d["nodes"].append(d["nodes"][1])),
    "tensor missing": rewritten(lambda d, t: t.pop("stem.conv/weight") is None),
    "tensor NaN": rewritten(lambda d, t: t["stem.conv/weight"].fill(np.nan)),
    "tensor of another shape": rewritten(lambda d, t: t.update({"stem.conv/weight": np.zeros((2, 2))})),
    "operator unknown": of_node("stem.conv", op="exec"),
    "attributes missing": of_node("stem.conv", attributes={}),
    "attribute of text": attribute("stem.conv", "stride", "ab"),
    "stride zero": attribute("stem.conv", "stride", [0, 0]),
    "padding of 10^12": attribute("stem.conv", "padding", [10**12, 10**12]),
    "groups zero": attribute("stem.conv", "groups", 0),
    "input of 10^12": attribute("input", "shape", [2, 10**6, 10**6]),
    "threshold NaN": attribute("stem.lif", "v_threshold", "NaN"),
    "reads itself": of_node("stem.conv", inputs=[["stem.conv", None]]),
    "reads later": of_node("stem.conv", inputs=[["lif", None]]),
    "reads nowhere": of_node("stem.conv", inputs=[["nowhere", None]]),
    "view of 10^12": of_node("conv", inputs=[["stem.lif", [[10**12], [[0, 10**12]], [0], [10**12]]]]),
    "view of nothing": of_node("conv", inputs=[["stem.lif", [[], [], [], []]]]),
    "type lies": of_node("stem.conv", type=[[8, 6, 7], "drive", "constant", None, None]),
    "kind unknown": of_node("stem.conv", type=[[8, 6, 6], "magic", "constant", None, None]),
    "steps of 10^9": rewritten(lambda d, t: d.update(time_steps=10**9)),
    "steps negative": rewritten(lambda d, t: d.update(time_steps=-1)),
    "steps of text": rewritten(lambda d, t: d.update(time_steps="four")),
    "encoding unknown": rewritten(lambda d, t: d.update(input_encoding="rot13")),
    "std zero": rewritten(lambda d, t: d.update(preprocessing={"mean": [0, 0], "std": [0, 1]})),
    "mean of text": rewritten(lambda d, t: d.update(preprocessing={"mean": "ab", "std": [1, 1]})),
    "widths of nobody": rewritten(lambda d, t: d["widths"].update(ghost=[[0, 1], [0, 1], None])),
    "widths too narrow": rewritten(lambda d, t: d["widths"].update({"stem.conv": [[0, 1], [0, 1], None]}), integer),
    "widths missing": rewritten(lambda d, t: d.update(widths={}), integer),
    "two outputs": rewritten(lambda d, t: d["nodes"].append({**find(d, "output"), "name": "other"})),
}
QKF_FLIPPED: dict[str, Make] = {f"flipped {seed}": flipped(qkf, seed, 6) for seed in range(12)}


# --- ONNX ------------------------------------------------------------------------------------------------------------


def model_bytes() -> bytes:
    return build_onnx(integer()).SerializeToString()


def remodelled(change: Callable[[Any], None]) -> Make:
    def make(path: Path) -> None:
        model = onnx.ModelProto.FromString(model_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return make


def append(model: Any, *nodes: Any, **constants: np.ndarray) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    model.graph.node.extend(nodes)


def tile_bomb(model: Any) -> None:
    append(model, helper.make_node("Tile", ["logits", "many"], ["bomb"]), many=np.array([10**6, 10**6]))


def pad_bomb(model: Any) -> None:
    append(model, helper.make_node("Pad", ["logits", "pads"], ["bomb"]), pads=np.array([0, 0, 10**9, 10**9]))


def doubling(model: Any) -> None:
    names = ["logits"] + [f"d{i}" for i in range(60)]
    append(model, *(helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)))


def loop(model: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    append(model, helper.make_node("Loop", ["", ""], ["l"], body=body))


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def first_float(model: Any) -> Any:
    return next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)


ONNX: dict[str, Make] = {
    "empty": raw(b""),
    "text": raw(b"not a model " * 100),
    **{f"cut at {p}": cut(model_bytes, p) for p in (0.1, 0.5, 0.99)},
    "foreign": lambda path: (
        path.write_bytes(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()) and None
    ),
    "operator unknown": remodelled(lambda m: append(m, helper.make_node("Exec", ["logits"], ["x"]))),
    "operator of another set": remodelled(lambda m: append(m, helper.make_node("LSTM", ["logits"], ["x"]))),
    "custom domain": remodelled(lambda m: append(m, helper.make_node("Add", ["logits"] * 2, ["x"], domain="com.evil"))),
    "domain declared": remodelled(lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1))),
    "another opset": remodelled(lambda m: setattr(m.opset_import[0], "version", 99)),
    "loop": remodelled(loop),
    "external data": remodelled(external),
    "tensor too short": remodelled(lambda m: setattr(first_float(m), "raw_data", b"\0")),
    "tensor of 2^62": remodelled(lambda m: first_float(m).dims.extend([2**31, 2**31])),
    "tensor negative": remodelled(lambda m: first_float(m).dims.append(-1)),
    "tensor NaN": remodelled(
        lambda m: append(m, helper.make_node("Add", ["logits", "n"], ["x"]), n=np.full(5, np.nan))
    ),
    "tile of 10^12": remodelled(tile_bomb),
    "pad of 10^18": remodelled(pad_bomb),
    "doubled sixty times": remodelled(doubling),
    "cycle": remodelled(lambda m: m.graph.node[0].input.__setitem__(0, "logits")),
    "reads nowhere": remodelled(lambda m: m.graph.node[1].input.__setitem__(0, "nowhere")),
    "same output twice": remodelled(lambda m: m.graph.node.append(m.graph.node[0])),
    "types that differ": remodelled(lambda m: append(m, helper.make_node("Add", ["logits", "raw_output"], ["x"]))),
    "steps of 10^9": remodelled(
        lambda m: [setattr(p, "value", "1000000000") for p in m.metadata_props if p.key == "qkf.time_steps"]
    ),
    "form unknown": remodelled(lambda m: [setattr(p, "value", "x") for p in m.metadata_props if p.key == "qkf.form"]),
    "input of unknown size": remodelled(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", "n")
    ),
}
ONNX_FLIPPED: dict[str, Make] = {f"flipped {seed}": flipped(model_bytes, seed, 8) for seed in range(12)}
