"""A test bench for the integer network, written from docs/integer-semantics.md alone: numpy, json, nothing else.

    qkf-deploy simulate net.int.qkf images.npz --save golden.npz --record all --membranes all
    qkf-deploy export net.int.qkf --to mem -o memories/
    python testbench.py net.int.qkf images.npz golden.npz [memories/]

computes every layer from the files and compares every value and membrane with the recorded one; exits with 1 if one
differs. With a folder of memory files the parameters come from there.
"""

import json
import sys

import numpy as np

TYPES = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1", "F32": "<f4", "F64": "<f8"}


def read_network(path):
    """The graph and its tensors: a safetensors file is a length, a JSON header, and the bytes."""
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    graph = json.loads(header.pop("__metadata__")["qkf"])
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        raw = data[8 + length + start : 8 + length + stop]
        tensors[name] = np.frombuffer(raw, TYPES[entry["dtype"]]).reshape(entry["shape"])
    return graph, tensors


def read_memories(folder):
    """Parameters from ``.mem`` files: hexadecimal digits of the two's complement."""
    tensors = {}
    with open(f"{folder}/manifest.json") as file:
        entries = json.load(file)["files"]
    for entry in entries:
        with open(f"{folder}/{entry['file']}") as file:
            numbers = [int(line, 16) for line in file]
        half, full = 1 << (entry["bits"] - 1), 1 << entry["bits"]
        signed = np.array([n - full if n >= half else n for n in numbers], np.int64)
        tensors[f"{entry['node']}/{entry['parameter']}"] = signed.reshape(entry["shape"])
    return tensors


def seen(value, view):
    """An operand as its view reads it; the first two axes are time and batch."""
    if view is None:
        return value
    split, take, perm, shape = view
    value = value.reshape(*value.shape[:2], *split)
    value = value[(slice(None), slice(None), *(slice(a, b) for a, b in take))]
    value = value.transpose(0, 1, *(2 + p for p in perm))
    return value.reshape(*value.shape[:2], *shape)


def windows(x, kernel, stride, padding, dilation, fill):
    """For every tap, in row-major order: its index, and what it reads, ``(T, B, C, *out)``."""
    x = np.pad(x, [(0, 0)] * 3 + [(p, p) for p in padding], constant_values=fill)
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[3:], kernel, stride, dilation, strict=True)]
    for tap in np.ndindex(*kernel):
        part = (
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, sizes, stride, strict=True)
        )
        yield tap, x[(..., *part)]


def border_cases(size, kernel, stride, padding, dilation):
    """Case of every output position along one axis: sets of taps that exist, in order of their rows read as binary."""
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    rows = [tuple(int(0 <= o * stride - padding + t * dilation < size) for t in range(kernel)) for o in range(out)]
    order = sorted(set(rows))
    return [order.index(row) for row in rows]


def conv(x, a, p):
    weight = p["weight"].astype(np.int64)
    group_in, group_out = weight.shape[1], len(weight) // a["groups"]
    y = 0
    for tap, window in windows(x, weight.shape[2:], a["stride"], a["padding"], a["dilation"], 0):
        parts = []
        for g in range(a["groups"]):
            w = weight[(slice(g * group_out, (g + 1) * group_out), slice(None), *tap)]
            parts.append(np.tensordot(window[:, :, g * group_in : (g + 1) * group_in], w, axes=([2], [1])))
        y = y + np.moveaxis(np.concatenate(parts, axis=-1), -1, 2)
    bias = p.get("bias")
    if bias is None:
        return y
    if bias.ndim == 1:
        return y + bias.reshape(-1, *[1] * (y.ndim - 3))
    axes = zip(x.shape[3:], weight.shape[2:], a["stride"], a["padding"], a["dilation"], strict=True)
    return y + bias[(slice(None), *np.ix_(*(border_cases(*axis) for axis in axes)))]


def linear(x, a, p):
    y = np.tensordot(x, p["weight"].astype(np.int64), axes=([2], [1]))
    y = np.moveaxis(y, -1, 2)
    return y + p["bias"].reshape(-1, *[1] * (y.ndim - 3)) if "bias" in p else y


def max_pool(x, a, p):
    lowest = np.iinfo(np.int64).min
    taps = windows(x, a["kernel"], a["stride"], a["padding"], [1] * len(a["kernel"]), lowest)
    return np.max([window for _, window in taps], axis=0)


def sum_pool(x, a, p):
    taps = windows(x, a["kernel"], a["stride"], a["padding"], [1] * len(a["kernel"]), 0)
    return sum(window for _, window in taps)


def integer_neuron(x, a, p, steps):
    """One spike per step; hard or soft reset. Other attributes are in the text too, and not in this network."""
    plain = {
        "carry": "own",
        "max_spikes": 1,
        "rounding": "floor",
        "strict": False,
        "reset_delay": False,
        "signed": False,
    }
    odd = [name for name, usual in plain.items() if a.get(name, usual) != usual]
    if odd or set(p) - {"theta", "initial"}:
        raise SystemExit(f"this bench has no {odd or sorted(p)}")
    theta, membrane = p["theta"], p.get("initial", np.zeros((), np.int64))
    spikes, charged = [], []
    for t in range(steps):
        drive = x[t] if len(x) > 1 else x[0]
        membrane = ((membrane * a["decay_multiplier"]) >> a["decay_shift"]) + (drive << a["fraction_bits"])
        charged.append(membrane)
        fired = membrane >= theta
        spikes.append(fired)
        membrane = np.where(fired, membrane - theta if a["soft_reset"] else 0, membrane)
    return np.array(spikes).astype(np.int64), np.array(charged)


def run(graph, tensors, pixels):
    """Every node's value: ``(T, B, *shape)``, or ``(1, B, *shape)`` where it is the same at every step or per image."""
    values = {}
    for node in graph["nodes"]:
        name, op, a = node["name"], node["op"], node["attributes"]
        p = {key: tensors[f"{name}/{key}"] for key in node["params"]}
        operands = [seen(values[source], view) for source, view in node["inputs"]]
        x = operands[0] if operands else None
        if op == "input":
            value = pixels.astype(np.int64)[None]
        elif op == "integer_neuron":
            value, values[f"{name}/membrane"] = integer_neuron(x, a, p, graph["time_steps"])
        elif op in ("conv", "linear", "max_pool", "sum_pool"):
            value = {"conv": conv, "linear": linear, "max_pool": max_pool, "sum_pool": sum_pool}[op](x, a, p)
        elif op == "add":
            value = operands[0] + operands[1]
        elif op == "mask":
            value = operands[1] * (operands[0] == 0 if a["invert"] else operands[0])
        elif op == "matmul" and a.get("chunk", 1) == 1:
            value = operands[0] @ operands[1]
        elif op == "sum":
            value = x.sum(axis=tuple(2 + axis for axis in a["axes"]), keepdims=a["keepdims"])
        elif op == "readout":
            value = x.sum(axis=0, keepdims=True) if len(x) > 1 else x * graph["time_steps"]
        elif op == "output":
            value = x
        else:
            raise SystemExit(f"this bench has no {op}")
        values[name] = value
    return values


def main(network, images, golden, memories=None):
    graph, tensors = read_network(network)
    if memories:
        tensors |= read_memories(memories)
    pixels, recorded = np.load(images)["images"], np.load(golden)
    values = run(graph, tensors, pixels.reshape(len(pixels), *graph["nodes"][0]["attributes"]["shape"]))
    values["raw_output"] = values[graph["nodes"][-1]["name"]]
    compared = different = layers = 0
    for name in sorted(set(values) & set(recorded.files)):
        wanted = recorded[name].astype(np.int64)
        wrong = int((np.broadcast_to(values[name], wanted.shape) != wanted).sum())
        layers, compared, different = layers + 1, compared + wanted.size, different + wrong
        if wrong:
            print(f"{name}: {wrong} of {wanted.size} differ")
    print(f"{layers} recordings, {compared:,} values compared, {different} differ")
    return 1 if different or not compared else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
