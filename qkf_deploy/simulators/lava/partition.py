"""How the nodes of a graph are grouped into Lava processes."""

from __future__ import annotations

from collections.abc import Mapping

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Add

#: ``operator``: one process per node, for inspection. ``block``: one per residual block, for speed.


#: Class in :mod:`qkf_deploy.simulators.lava.processes.operators` by operator kind.
PROCESS_NAMES: Mapping[str, str] = {
    "conv": "Synapse",
    "linear": "Synapse",
    "integer_neuron": "IntegerNeuron",
    "max_pool": "Pool",
    "sum_pool": "Pool",
    "sum": "Sum",
    "readout": "Readout",
    "add": "Add",
    "concat": "Concat",
    "mask": "Mask",
    "shift": "Shift",
    "matmul": "MatMul",
}


def blocks(graph: Graph) -> list[list[Node]]:
    """Runs of nodes that read one value from before and hand one value on, input and output nodes left out.

    A block ends at an addition whose result is the only value that later nodes read: the end of one residual half
    (attention or MLP). Around drives that bypass several additions the block grows until one value is left.
    """
    last_use = {o.node: i for i, node in enumerate(graph) for o in node.inputs}
    out: list[list[Node]] = [[]]
    alive: set[str] = set()
    for index, node in enumerate(graph):
        alive = {name for name in alive if last_use[name] > index}
        if node.op.kind == "output":
            break
        alive.add(node.name)
        if node.op.kind == "input":
            continue
        out[-1].append(node)
        if isinstance(node.op, Add) and alive == {node.name}:
            out.append([])
    return [block for block in out if block]


def check_causal(graph: Graph) -> None:
    """Raises UnsupportedError for nodes that wait for later time steps: every process sends at every step."""
    waiting = [node.name for node in graph if node.op.steps_awaited > 1]
    if waiting:
        raise UnsupportedError(
            f"{', '.join(waiting)}: not causal, sums over chunks of time steps; Lava's processes work step by step",
            hint="use the event, torch or onnx engine, which work layer by layer",
        )


def source_of(block: list[Node]) -> str:
    """Name of the value a block reads from before."""
    inside = {node.name for node in block}
    return next(o.node for node in block for o in node.inputs if o.node not in inside)
