"""A graph without its arrays: one screen, plain data, a data frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, largest
from qkf_deploy.display.tables import Field, summed, tabulate
from qkf_deploy.errors import GraphError

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame
    from qkf_deploy.ir.graph import Graph, Node


def overview(graph: Graph) -> Overview:
    """Headline, the nodes with most parameters (then the largest outputs), what is wrong with the graph, notices."""
    nodes = list(graph)
    shown, left_out = largest(nodes, lambda n: (_parameters(n), n.type.size), "nodes, those with most parameters")
    problem = _problem(graph)
    macs: Field[Node] = summed(
        "dense_macs_per_step", "dense MACs / step", lambda n: _macs(graph, n)["dense_macs_per_step"]
    )
    fields = _FIELDS if problem else (*_FIELDS, macs)
    return Overview(
        _headline(graph),
        tabulate("", fields, shown, nodes),
        (*left_out, *problem, *_waits(graph), *graph.assumed, *graph.notices),
    )


def data(graph: Graph) -> dict[str, Any]:
    """See :meth:`qkf_deploy.ir.Graph.to_dict`."""
    return {
        "time_steps": graph.time_steps,
        "input_encoding": graph.input_encoding,
        "arithmetic": graph.arithmetic,
        "parameters": graph.parameter_count(),
        "class_names": list(graph.class_names),
        "not_causal": graph.not_causal,
        "assumptions": [dataclasses.asdict(a) for a in graph.assumptions],
        "nodes": [_node_data(node) for node in graph],
    }


def frame(graph: Graph) -> DataFrame:
    """See :meth:`qkf_deploy.ir.Graph.to_pandas`."""
    records = [{**_node_data(node), **_macs(graph, node)} for node in graph]
    columns = [name for name in records[0] if name != "attributes"]
    return data_frame(records, columns, time_steps=graph.time_steps, arithmetic=graph.arithmetic)


_FIELDS: tuple[Field[Node], ...] = (
    Field("node", "node", lambda n: n.name, left=True),
    Field("operator", "operator", lambda n: n.op.kind, left=True),
    Field("reads", "reads", lambda n: ", ".join(o.node for o in n.inputs), left=True),
    Field("shape", "output", lambda n: _shape(n), left=True),
    Field("kind", "kind", lambda n: n.type.kind.value, left=True),
    summed("parameters", "parameters", lambda n: _parameters(n)),
)


def _waits(graph: Graph) -> tuple[str, ...]:
    """What is not causal."""
    found = [f"{node.name} (chunks of {node.op.steps_awaited})" for node in graph if node.op.steps_awaited > 1]
    return (f"not causal, waits for later time steps: {', '.join(found)}",) if found else ()


def _headline(graph: Graph) -> str:
    shapes = [_shape(node) for node in graph if node.op.kind == "input"]
    facts = (
        f"{graph.arithmetic} network",
        f"T = {graph.time_steps}",
        " ".join((graph.input_encoding, "input", *shapes)),
        quantity(len(graph.nodes), "node"),
        quantity(graph.parameter_count(), "parameter"),
    )
    return ", ".join(facts)


def _problem(graph: Graph) -> tuple[str, ...]:
    """What makes the graph invalid: it can be looked at all the same, but not counted."""
    try:
        graph.verify()
    except GraphError as error:
        return (f"not a valid graph: {error}",)
    return ()


def _node_data(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op.kind,
        "attributes": dataclasses.asdict(node.op),  # type: ignore[call-overload]  # operators are dataclasses
        "inputs": [o.node for o in node.inputs],
        "shape": list(node.type.shape),
        "kind": node.type.kind.value,
        "high": node.type.high,
        "parameters": _parameters(node),
        "source": node.source,
    }


def _macs(graph: Graph, node: Node) -> dict[str, int]:
    cost = node.op.static_cost(graph.input_types(node), node.params)
    return {"dense_macs_per_step": cost.dense_macs, "border_exact_macs_per_step": cost.border_exact_macs}


def _parameters(node: Node) -> int:
    return sum(p.size for p in node.params.values())


def _shape(node: Node) -> str:
    return " x ".join(map(str, node.type.shape))
