"""A network as a table of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkf_deploy.report.formats import Column, Sheet

if TYPE_CHECKING:
    from qkf_deploy.ir import Graph
    from qkf_deploy.passes.layers import Layer

_COLUMNS = (
    Column("layer", "layer", True),
    Column("type", "type", True),
    Column("input", "input", True),
    Column("shape_in", "shape in", True),
    Column("shape_out", "shape out", True),
    Column("parameters", "parameters"),
    Column("dense_macs_per_step", "dense MACs / step"),
    Column("border_exact_macs_per_step", "existing taps only"),
    Column("accumulator_bits", "acc bits"),
    Column("membrane_bits", "U bits"),
    Column("audit", "audit", True),
)


def layer_sheet(graph: Graph, layers: Sequence[Layer]) -> Sheet:
    """One row per node."""
    rows = tuple(_row(layer) for layer in layers)
    shown = tuple(tuple(_cell(v) for v in row) for row in rows)
    totals = (sum(getattr(a, key) for a in layers) for key in ("parameters", "dense_macs", "border_exact_macs"))
    footer = ("total", "", "", "", "", *(f"{t:,}" for t in totals), "", "", "")
    return Sheet(f"{graph.arithmetic} graph, T={graph.time_steps}", _COLUMNS, rows, shown, footer)


def _row(layer: Layer) -> tuple[str | int | None, ...]:
    return (
        layer.name,
        layer.kind,
        ", ".join(layer.inputs),
        ", ".join(_shape(s) for s in layer.input_shapes),
        _shape(layer.output_shape),
        layer.parameters or None,
        layer.dense_macs or None,
        layer.border_exact_macs or None,
        layer.accumulator_bits,
        layer.membrane_bits,
        layer.audit,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _cell(value: str | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else value


def facts(graph: Graph, gates: Sequence[str]) -> str:
    """What a network says of itself, and its memoryless neurons: the lines under the table."""
    lines = [f"{key}: {value}" for key, value in graph.provenance.items()]
    if graph.preprocessing and graph.preprocessing.resize:
        resize, (_, height, width) = graph.preprocessing.resize, graph.input.type.shape
        size = f"shorter side to {resize.shorter} pixels ({resize.interpolation}), centre {width} x {height}"
        lines.append(f"image files: {size}")
    if graph.preprocessing:
        lines.append(f"pixels: (byte / 255 - {graph.preprocessing.mean}) / {graph.preprocessing.std}")
    if gates:
        lines.append(f"memoryless (OR) neurons: {', '.join(gates)}")
    lines += graph.assumed
    lines += [f"note: {text}" for text in graph.notices]
    return "\n".join(lines)
