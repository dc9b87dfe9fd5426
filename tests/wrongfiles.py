"""A folder with tiny good files of every kind, and every kind of wrong file, for the commands to stumble over."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors.numpy import save as pack
from stored_runs import put_together, taken_apart

import qkf_deploy as qd
from qkf_deploy.ir import Graph, GraphBuilder, Preprocessing
from qkf_deploy.ops import Conv, Input, Linear, Neuron, Output, Readout, Sum

SIZE = (3, 8, 8)
#: Files of the folder that are what they say; everything else in it is wrong for every command.
GOOD = {
    "float": {"float.qkf", "scalar.float.qkf", "merged.qkf"},
    "integer": {"integer.qkf", "other.qkf", "scalar.qkf", "vector.qkf"},
    "run": {"run.sqlite", "other_run.sqlite"},
    "images": {"images.npy", "labelled.npz", "picture.png", "pictures"},
    "mixed": {""},  # the folder itself: good and damaged pictures
    "nir": {"net.nir"},
    "model": {"weights.pth", "model.py:fine"},
    "profile": {"good.profile.toml"},
    "chip": {"good.chip.toml"},
}  # fmt: skip

FACTORIES = """
import sys
import torch
from spikingjelly.activation_based import neuron

number = 3

def fine(width=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, padding=1), neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m"),
        torch.nn.Flatten(2), torch.nn.Linear(64, 2))

def small():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6), neuron.IFNode(), torch.nn.Linear(6, 3))

def dead():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))

def raises():
    raise KeyError("no such variant")

def asserts():
    assert False

def nothing():
    return None

def text():
    return "a module"

def a_class():
    return torch.nn.Linear

def leaves():
    sys.exit(3)

def exits():
    raise SystemExit("bye")

def recurses():
    return recurses()

def needs(wanted):
    return wanted

def broken_forward():
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x + self.gone
    return Broken()

def leaving_forward():
    class Leaving(torch.nn.Module):
        def forward(self, x):
            sys.exit(0)
    return Leaving()

def list_output():
    class Lists(torch.nn.Module):
        def forward(self, x):
            return [x.mean(), "x"]
    return Lists()
"""


def build(folder: Path) -> None:
    """Make everything in ``folder``."""
    _networks(folder)
    _images(folder)
    _runs(folder)
    _plain_files(folder)
    _damaged_networks(folder)
    _damaged_runs(folder)
    _models(folder)
    _toml(folder)
    (folder / "read_only").write_bytes(b"kept")
    (folder / "read_only").chmod(0o444)


def network(form: str = "classes", seed: int = 0) -> Graph:
    """A convolution, a neuron and a head, with an output of another shape per form."""
    rng = np.random.default_rng(seed)
    net = GraphBuilder()
    if form == "vector":
        value = net.add("input", Input((6,)))
        value = net.add("fc1", Linear(), [value], {"weight": rng.normal(size=(5, 6))})
        value = net.add("lif", Neuron(2.0, 0.3, 0.0), [value])
    else:
        value = net.add("input", Input(SIZE))
        value = net.add("conv", Conv((1, 1), (1, 1), (1, 1)), [value], {"weight": rng.normal(size=(4 + seed, 3, 3, 3))})
        value = net.add("lif", Neuron(2.0, 0.3, 0.0), [value])
        value = net.add("total", Sum((0, 1, 2) if form == "scalar" else (1, 2)), [value])
    value = net.add("readout", Readout(), [value])
    if form != "scalar":
        fan_in = 5 if form == "vector" else 4 + seed
        value = net.add("head", Linear(), [value], {"weight": rng.normal(size=(3, fan_in))})
    net.add("output", Output(), [value])
    graph = net.build(time_steps=2)
    return graph if form == "vector" else replace(graph, preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3))


def merged() -> Graph:
    """The network as if its model had run the neuron over a merged time and batch axis."""
    graph = network()
    neuron = replace(graph["lif"], op=replace(graph["lif"].op, time_merged_with_batch=True))  # type: ignore[call-arg]
    return replace(graph, nodes={**graph.nodes, "lif": neuron}).verify()


def _networks(folder: Path) -> None:
    qd.save(network(), folder / "float.qkf")
    qd.save(merged(), folder / "merged.qkf")
    qd.save(network("scalar"), folder / "scalar.float.qkf")
    integer = qd.quantize(network(), 8)
    qd.save(integer, folder / "integer.qkf")
    qd.save(qd.quantize(network(seed=1), 8), folder / "other.qkf")
    qd.save(qd.quantize(network("scalar"), 8), folder / "scalar.qkf")
    qd.save(qd.quantize(network("vector"), 8, input="fixed", input_max=1.0), folder / "vector.qkf")
    qd.export_onnx(integer, folder / "net.onnx")


def _runs(folder: Path) -> None:
    for network, run in (("integer.qkf", "run.sqlite"), ("other.qkf", "other_run.sqlite")):
        graph = qd.load(folder / network)
        given = qd.load_images(folder / "images.npy", graph)
        ran = qd.simulate(graph, given.array)
        qd.save_run(graph, ran, folder / run, data=given.digest, place=given.place)


def _images(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    good = rng.integers(0, 256, (2, *SIZE), dtype=np.uint8)
    np.save(folder / "images.npy", good)
    np.savez(folder / "labelled.npz", images=good, labels=np.array([0, 2]))
    picture = Image.fromarray(good[0].transpose(1, 2, 0))
    picture.save(folder / "picture.png")
    (folder / "pictures").mkdir()
    picture.save(folder / "pictures" / "a.png")
    Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(folder / "larger.png")
    (folder / "cut.png").write_bytes((folder / "picture.png").read_bytes()[:40])
    (folder / "wrong.jpg").write_bytes(b"no picture at all")
    (folder / "arrays").mkdir()
    wrong = {
        "flat": good.reshape(2, -1), "no_images": good[:0], "transposed": good.transpose(0, 2, 3, 1),
        "one_number": np.uint8(3), "no_pixels": np.zeros((2, 3, 0, 0), np.uint8),
        "nan": np.full((1, *SIZE), np.nan), "inf": np.full((1, *SIZE), np.inf), "complex": good.astype(complex),
        "texts": np.full((1, *SIZE), "a"), "dates": np.zeros((1, *SIZE), "M8[s]"), "bytes": np.full((1, *SIZE), b"a"),
        "huge": np.full((1, *SIZE), 2**63, np.uint64), "negative": np.full((1, *SIZE), -1),
        "records": np.zeros((1, *SIZE), [("a", np.int8), ("b", np.float32)]), "axes": np.zeros((1,) * 32, np.uint8),
        "bool_vectors": np.zeros((2, 7), bool),
    }  # fmt: skip
    for name, array in wrong.items():
        np.save(folder / "arrays" / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "images.npy").read_bytes()[:-20])
    (folder / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}")
    labels: dict[str, Any] = {
        "label_texts": np.array(["a", "b"]), "many_labels": np.arange(3), "label_beyond": np.array([0, 99]),
        "label_negative": np.array([0, -1]), "label_floats": np.array([0.5, 1.5]), "label_nan": np.array([np.nan, 1]),
        "label_huge": np.array([2**64 - 1, 0], np.uint64), "label_table": np.zeros((2, 2), int), "label_scalar": 3,
        "label_complex": np.array([1j, 0]),
    }  # fmt: skip
    for name, value in labels.items():
        np.savez(folder / "arrays" / f"{name}.npz", images=good, labels=value)
    np.savez(folder / "no_key.npz", one=good, other=good)
    np.savez(folder / "nothing.npz")
    whole = (folder / "labelled.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "mixed").mkdir()
    (folder / "mixed" / "a.png").write_bytes(b"no picture")
    (folder / "mixed" / "note.txt").write_text("hello")


def _plain_files(folder: Path) -> None:
    (folder / "folder").mkdir()
    (folder / "empty").write_bytes(b"")
    for suffix in ("qkf", "json", "npy", "npz", "nir", "pth", "safetensors", "onnx", "toml", "png"):
        (folder / f"empty.{suffix}").write_bytes(b"")
        (folder / f"noise.{suffix}").write_bytes(np.random.default_rng(2).bytes(300))
        (folder / f"text.{suffix}").write_text("Dear network,\nplease spike.\n", encoding="utf-8")
    (folder / "utf16.json").write_text('{"kind": "qkf-run"}', encoding="utf-16")
    (folder / "hdf5.nir").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    (folder / "loop").symlink_to("loop")
    documents = {
        "list": "[]", "null": "null", "number": "7", "huge": "9" * 5000, "huge_float": "1e999", "nan": "NaN",
        "deep": "[" * 100_000, "deeper": '{"a":' * 50_000, "other_kind": '{"kind": "recipe", "schema_version": 1}',
        "bare": '{"kind": "qkf-run", "schema_version": 1}', "newer": '{"kind": "qkf-run", "schema_version": 99}',
        "surrogate": '{"kind": "\\ud800"}', "kinds": '{"kind": ["qkf-run"], "schema_version": {}}',
    }  # fmt: skip
    for name, text in documents.items():
        (folder / f"{name}.json").write_text(text)


def _damaged_networks(folder: Path) -> None:
    whole = (folder / "integer.qkf").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    metadata = header["__metadata__"]
    (folder / "networks").mkdir()
    for cut in (4, 60, len(whole) // 2, len(whole) - 1):
        (folder / "networks" / f"cut{cut}.qkf").write_bytes(whole[:cut])
    (folder / "longer.qkf").write_bytes(whole + b"more")

    def write(name: str, changed: dict[str, Any]) -> None:
        text = json.dumps(changed).encode()
        (folder / "networks" / f"{name}.qkf").write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])

    write("no_metadata", {k: v for k, v in header.items() if k != "__metadata__"})
    write("no_tensors", {"__metadata__": metadata})
    for key in metadata:
        write(f"without_{key}", {**header, "__metadata__": {k: v for k, v in metadata.items() if k != key}})
        for wrong in ("", "null", "[]", "7", '"text"', "{}", "9" * 5000, "[" * 5000, '{"a": NaN}'):
            write(f"{key}_{crc32(wrong.encode())}", {**header, "__metadata__": {**metadata, key: wrong}})
    for key, wrong in (("dtype", "F7"), ("shape", [-1]), ("shape", [2**62, 4]), ("data_offsets", [0, 2**62])):
        tensor = next(k for k in header if k != "__metadata__")
        write(f"tensor_{key}_{crc32(str(wrong).encode())}", {**header, tensor: {**header[tensor], key: wrong}})


def _damaged_runs(folder: Path) -> None:
    (folder / "runs").mkdir()
    good = folder / "run.sqlite"
    whole = taken_apart(good)
    for number, (place, value) in enumerate(damages(whole)):
        changed = json.loads(json.dumps(whole))
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        if value is ...:
            del parent[place[-1]]
        else:
            parent[place[-1]] = value
        put_together(folder / "runs" / f"{number}.sqlite", good, changed)
    content = good.read_bytes()
    (folder / "cut_run.sqlite").write_bytes(content[: len(content) // 2])
    (folder / "old_run.json").write_text('{"kind": "qkf-run", "schema_version": 1}')


def damages(tables: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """(place, wrong value) of every field of a run; ``...`` leaves it out. All of them are damage."""
    wrong = (..., None, "text", -1)
    head = ("run", 0, "head")
    found: list[tuple[tuple[Any, ...], Any]] = [(("run", 0, "samples"), value) for value in ("text", -1, 0, 1.5)]
    for key in ("ledger", "widths", "graph", "config", "class_names", "provenance", "notices"):
        found += [((*head, key), value) for value in (..., None, -1, 7)]
    for key in ("time_steps", "layers"):
        found += [((*head, "ledger", key), value) for value in (*wrong, 1.5, 10**400, [])]
    layer = tables["run"][0]["head"]["ledger"]["layers"][1]
    static = [key for key in layer if key not in ("counts", "spikes_per_step")]
    found += [((*head, "ledger", "layers", 1, key), value) for key in static for value in (*wrong, [[]])]
    node = tables["run"][0]["head"]["graph"]["nodes"][1]
    found += [((*head, "graph", "nodes", 1, key), value) for key in node for value in (*wrong, {})]
    row = tables["run"][0]["head"]["widths"][1]
    found += [((*head, "widths", 1, key), value) for key in row for value in (..., "text", [], 1.5)]
    for key in ("label", "prediction", "top", "counts"):
        found += [(("sample", 0, key), value) for value in ("text", -1, 1.5)]
    return found


def _models(folder: Path) -> None:
    import torch

    (folder / "model.py").write_text(FACTORIES)
    (folder / "syntax.py").write_text("def fine(:\n")
    (folder / "raising.py").write_text("1 / 0\n")
    (folder / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "missing_import.py").write_text("import no_such_package\n")
    (folder / "null.py").write_bytes(b"\x00\x01")
    torch.save({"a.weight": torch.zeros(2, 2)}, folder / "foreign.pth")
    torch.save({}, folder / "nothing.pth")
    torch.save([1, "a"], folder / "list.pth")
    torch.save(torch.zeros(3), folder / "tensor.pth")
    torch.save({"model": {"a": 1, 2: "b"}}, folder / "strange_keys.pth")
    torch.save({"w": torch.full((2, 2), float("nan"))}, folder / "nan.pth")
    (folder / "cut.pth").write_bytes((folder / "foreign.pth").read_bytes()[:200])
    (folder / "code.pth").write_bytes(pickle.dumps(_Evil()))
    (folder / "foreign.safetensors").write_bytes(pack({"a": np.zeros((2, 2), np.float32)}))
    (folder / "bytes.pth").write_bytes(b"\x80\x02")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pickled",)


def _toml(folder: Path) -> None:
    from importlib import resources

    place = resources.files("qkf_deploy.hw_models")
    profile = (place / "profiles" / "paper-eq23.toml").read_text()
    chip = (place / "chips" / "generic-digital.toml").read_text()
    (folder / "good.profile.toml").write_text(profile)
    (folder / "good.chip.toml").write_text(chip)
    (folder / "wrong").mkdir()
    everywhere = {
        "empty": "", "no_schema": "id = 'x'\n", "syntax": "schema = \n", "bom": "\ufeffschema = 1\n",
        "nested": "a = " + "[" * 5000 + "]" * 5000, "huge": "schema = " + "9" * 5000, "dates": "schema = 1979-05-27\n",
        "null": "schema = 1\x00", "dotted": ".".join(["a"] * 3000) + " = 1",
    }  # fmt: skip
    for name, text in everywhere.items():
        (folder / "wrong" / f"{name}.toml").write_text(text, encoding="utf-8")
    for name, text in (("profile", profile), ("chip", chip)):
        lines = text.splitlines()
        variants = [text + "\nunknown = 1\n", f"{lines[1]}\n{text}", text + "\n[price.nothing]\npj = 1\n"]
        keys = [i for i, line in enumerate(lines) if " = " in line and not line.startswith((" ", "#"))]
        for i in keys:
            key = lines[i].split(" = ")[0]
            end = next((j for j in range(i, len(lines)) if not lines[i].endswith("[") or lines[j] == "]"), i)
            for value in ("7", '"text"', "[]", "{}", "nan", "-1", "1e400", "true", "[[1]]", "9" * 50, "1979-05-27"):
                variants.append("\n".join([*lines[:i], f"{key} = {value}", *lines[end + 1 :]]))
            variants.append("\n".join([*lines[:i], *lines[end + 1 :]]))
        for number, variant in enumerate(variants):
            (folder / "wrong" / f"{name}{number}.toml").write_text(variant)
