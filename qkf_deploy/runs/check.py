"""Whether a run file that was read is whole: every field that a table or the page will read, of the right type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Assumption
from qkf_deploy.ledger import COUNT_CLASSES, LayerRecord, Ledger
from qkf_deploy.runs.content import RunFile
from qkf_deploy.runs.first import RATES, pixels
from qkf_deploy.runs.widths import WIDTH_KEYS

_NODE = {
    "name": str, "op": str, "attributes": Mapping, "inputs": list, "shape": list, "kind": str, "parameters": int,
    "source": str,
}  # fmt: skip
_GATE = {"node": str, "time_steps": int, "heads": int, "positions": int, "open": list, "open_per_step": list}
_INPUT = {"shape": list, "pixels": str}
_ACTIVITY = {"node": str, "images": int, "neurons": int, "rates": list}
_ASSUMPTION = tuple(f.name for f in dataclasses.fields(Assumption))
_LAYER_TEXTS = ("name", "op", "output_kind", "timing")
_LAYER_NUMBERS = (
    "output_size", "dense_macs", "border_exact_macs", "weight_bits", "accumulator_bits", "membrane_bits", "parameters",
    "leftovers",
)  # fmt: skip


def check_content(run: RunFile) -> None:
    """Raises InputError, naming the place, for fields that are missing, of the wrong type, or that contradict."""
    _check_ledger(run.ledger)
    _check_graph(run.graph)
    for index, row in enumerate(run.widths):
        _check_widths(row, f"widths[{index}]")
    _check_samples(run)
    for index, gate in enumerate(run.gates):
        _check_table(gate, _GATE, f"gates[{index}]")
        _check_gate(gate, f"gates[{index}]")
    if run.input is not None:
        _check_table(run.input, _INPUT, "the picture of the input")
        pixels(run.input)
    for index, row in enumerate(run.activity):
        _check_table(row, _ACTIVITY, f"activity[{index}]")
        _check_rates(row, f"activity[{index}]")


def _check_samples(run: RunFile) -> None:
    """Every sample has a class that exists, or none."""
    classes = _classes(run.graph["nodes"][-1])
    for index, label, prediction, top in zip(run.indices, run.labels, run.predictions, run.top, strict=True):
        known = [c for c in (label if classes else None, prediction, *top) if c is not None]
        if any(c >= classes for c in known):
            raise InputError(f"a damaged run file: the classes of sample {index}")
    if run.class_names and len(run.class_names) != classes:
        raise InputError(f"a damaged run file: {len(run.class_names)} names of {classes} classes")


def _classes(output: Mapping[str, Any]) -> int:
    """How many classes the network tells apart: the size of its first output that is a vector; 0 if none is."""
    shapes = output["attributes"].get("shapes", [])
    _is(shapes, list | tuple, "the shapes of the outputs")
    for shape in shapes or [output["shape"]]:
        _is(shape, list | tuple, "the shape of an output")
        sizes = [n for n in shape if isinstance(n, int) and n > 1]
        if len(sizes) == 1:
            return sizes[0]
    return 0


def _check_graph(graph: Any) -> None:
    if not isinstance(graph, Mapping) or not isinstance(graph.get("nodes"), list):
        raise InputError("a damaged run file: the graph has no nodes")
    _is(graph.get("parameters"), int, "graph.parameters")
    _is(graph.get("assumptions"), list, "graph.assumptions")
    for index, assumption in enumerate(graph["assumptions"]):
        _check_table(assumption, dict.fromkeys(_ASSUMPTION, str), f"graph.assumptions[{index}]")
        if set(assumption) != set(_ASSUMPTION):
            raise InputError(f"a damaged run file: graph.assumptions[{index}] has other fields")
    names: list[str] = []
    for index, node in enumerate(graph["nodes"]):
        _check_table(node, _NODE, f"graph.nodes[{index}]")
        if not set(map(str, node["inputs"])) <= set(names):
            raise InputError(f"a damaged run file: {node['name']} reads a node that does not come before it")
        names.append(node["name"])
    if not names or len(set(names)) != len(names):
        raise InputError("a damaged run file: node names are missing or repeated")


def _check_widths(row: Any, place: str) -> None:
    if not isinstance(row, Mapping) or set(row) != set(WIDTH_KEYS):
        raise InputError(f"a damaged run file: {place} has other columns")
    for key, value in row.items():
        text = key in ("layer", "type")
        if text or value is not None:
            _is(value, str if text else int, f"{place}.{key}")


def _check_table(table: Any, fields: Mapping[str, Any], place: str) -> None:
    _is(table, Mapping, place)
    for key, kind in fields.items():
        _is(table.get(key), kind, f"{place}.{key}")


def _is(value: Any, kind: Any, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"a damaged run file: {place} is {str(value)[:40]!r}")


def _check_rates(row: Mapping[str, Any], place: str) -> None:
    whole = len(row["rates"]) == RATES and all(type(n) is int and n >= 0 for n in row["rates"])
    if not whole or sum(row["rates"]) != row["neurons"] or row["images"] < 1:
        raise InputError(f"a damaged run file: {place} contradicts itself")


def _check_gate(gate: Mapping[str, Any], place: str) -> None:
    try:
        opened = np.array(gate["open"], dtype=np.int64)
        steps = np.array(gate["open_per_step"], dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"a damaged run file: {place}.open is no table of whole numbers") from error
    whole = opened.shape == (gate["heads"], gate["positions"]) and opened.size and steps.ndim == 1
    if not whole or gate["time_steps"] < 1 or opened.min() < 0 or opened.max() > gate["time_steps"]:
        raise InputError(f"a damaged run file: {place} contradicts itself")


def _check_ledger(ledger: Ledger) -> None:
    if ledger.images < 1 or ledger.time_steps < 1 or not ledger.layers:
        raise InputError("a damaged run file: the ledger is empty")
    for layer in ledger:
        _check_layer(layer, ledger)


def _check_layer(layer: LayerRecord, ledger: Ledger) -> None:
    place = f"ledger layer {str(layer.name)[:60]!r}"
    for key in _LAYER_TEXTS:
        _is(getattr(layer, key), str, f"{place}.{key}")
    for key in _LAYER_NUMBERS:
        _is(getattr(layer, key), int, f"{place}.{key}")
        if getattr(layer, key) < 0:
            raise InputError(f"a damaged run file: {place}.{key} is negative")
    sizes = all(isinstance(n, int) and n > 0 for n in layer.input_sizes)
    kinds = all(isinstance(k, str) for k in layer.input_kinds)
    if not sizes or not kinds or len(layer.input_sizes) != len(layer.input_kinds) or not layer.input_sizes:
        raise InputError(f"a damaged run file: operands of {place}")
    for name, counts in layer.counts.items():
        if name not in COUNT_CLASSES or counts.shape != (ledger.images,) or counts.min() < 0:
            raise InputError(f"a damaged run file: {place}, counts of {name!r}")
    steps = layer.spikes_per_step
    if steps is not None and (steps.shape != (ledger.time_steps, ledger.images) or not layer.output_size):
        raise InputError(f"a damaged run file: {place}.spikes_per_step")
