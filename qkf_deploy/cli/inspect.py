"""`qkf-deploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import format_option, show
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.passes.audit import input_words, or_gates
from qkf_deploy.report.formats import Column, Sheet

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


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@format_option
def inspect(network: Path, fmt: str) -> None:
    """Show layers, shapes, parameters, dense MACs per step, widths and the spike audit of a .qkf file.

    \b
    Example:
      qkf-deploy inspect net.qkf --format md
    """
    graph = api.load(network)
    show(layer_sheet(graph), fmt, _below(graph))


def layer_sheet(graph: Graph) -> Sheet:
    """One row per node."""
    findings = {f.node: f"{'' if f.severity == 'ok' else f.severity + ': '}{f.text}" for f in api.audit(graph)}
    rows = [_row(graph, node, findings.get(node.name, "")) for node in graph]
    shown = [tuple(_cell(v) for v in row) for row in rows]
    totals = [sum(v for r in rows if isinstance(v := r[i], int)) for i in (5, 6, 7)]
    footer = ("total", "", "", "", "", *(f"{t:,}" for t in totals), "", "", "")
    return Sheet(f"{graph.arithmetic} graph, T={graph.time_steps}", _COLUMNS, tuple(rows), tuple(shown), footer)


def _row(graph: Graph, node: Node, finding: str) -> tuple[str | int | None, ...]:
    types = graph.input_types(node)
    cost = node.op.static_cost(types, node.params)
    widths = graph.widths.get(node.name)
    return (
        node.name,
        node.op.kind,
        ", ".join(input_words(t) for t in types),
        ", ".join("x".join(map(str, t.shape)) for t in types),
        "x".join(map(str, node.type.shape)),
        sum(p.size for p in node.params.values()) or None,
        cost.dense_macs or None,
        cost.border_exact_macs or None,
        signed_bits(*widths.partial) if widths and widths.membrane is None else None,
        signed_bits(*widths.membrane) if widths and widths.membrane else None,
        finding,
    )


def _cell(value: str | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else value


def _below(graph: Graph) -> str:
    lines = [f"{key}: {value}" for key, value in graph.provenance.items()]
    if graph.preprocessing:
        lines.append(f"pixels: (byte / 255 - {graph.preprocessing.mean}) / {graph.preprocessing.std}")
    gates = or_gates(graph)
    if gates:
        lines.append(f"memoryless (OR) neurons: {', '.join(gates)}")
    lines += [f"note: {text}" for text in graph.notices]
    return "\n".join(lines)
