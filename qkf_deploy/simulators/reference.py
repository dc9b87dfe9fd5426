"""The reference engine: every operator's own numpy semantics, one node after another.

Written to be read. Float graphs run in float64, integer graphs in int64; nothing wraps around.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Output
from qkf_deploy.ops.membrane import SpikingNeuron
from qkf_deploy.simulators.carried import Carried, charged
from qkf_deploy.simulators.counting import Account
from qkf_deploy.simulators.run import Progress, Record, Run, is_neuron, keeps_fired, last_uses


@keeps_fired
def run(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    replace_value: Callable[[str, np.ndarray], np.ndarray] | None = None,
    carried: Carried | None = None,
) -> Run:
    """Simulate a batch.

    Args:
        graph: float or integer.
        inputs: encoded by :func:`qkf_deploy.simulators.inputs.encode`: ``(1, B, C, H, W)`` for images,
            ``(T, B, C, H, W)`` for event frames; float64 or int64 like the graph.
        record: values and membranes to keep.
        progress: called after each node.
        replace_value: given a node's name and value, the value that the nodes after it read; lets a comparison feed
            every layer another network's activity.
        carried: the graph is a stretch of another's time steps; membranes go on from there, and are left there.

    Returns:
        See :class:`qkf_deploy.simulators.run.Run`.
    """
    last_use = last_uses(graph)
    values: dict[str, np.ndarray] = {}
    membranes: dict[str, np.ndarray] = {}
    account = Account(graph) if carried is None else Account(carried.whole.rules, steps=graph.time_steps)
    kept: dict[str, np.ndarray] = {}
    logits = raw = inputs
    for index, node in enumerate(graph):
        operands = [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]
        if isinstance(node.op, SpikingNeuron):
            value, charges = _fired(node, node.op, operands, graph.time_steps, carried)
            if node.name in record.membranes:
                membranes[node.name] = charges
        else:
            value = inputs if node.op.kind == "input" else node.op.run(operands, node.params, graph.time_steps)
        values[node.name] = value if replace_value is None else replace_value(node.name, value)
        account.enter(node, operands, value)
        if node.name in record.values:
            kept[node.name] = value
        if isinstance(node.op, Output):
            raw, logits = value, node.op.logits(value, node.params)
        for name in last_use.get(index, ()):
            del values[name]
        if progress is not None:
            progress(index + 1, len(graph.nodes))
    spikes = {k: v for k, v in kept.items() if is_neuron(graph[k].op.kind)}
    return Run(logits, raw, account.ledger(inputs.shape[1]), spikes, kept, membranes)


def _fired(
    node: Node, op: SpikingNeuron, operands: list[np.ndarray], steps: int, carried: Carried | None
) -> tuple[np.ndarray, np.ndarray]:
    """(spikes, charged membranes) of a neuron."""
    if carried is None:
        membranes = op.membranes(operands, node.params, steps)
    else:
        membranes = charged(node, op, operands, steps, carried.membranes)
    return op.spikes(membranes, node.params), membranes
