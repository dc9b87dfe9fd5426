"""Table 4, Figure 3 and the moments of Eq. 15-20 for a network and images of the user's."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from qkf_deploy.evaluation.paper import statistics
from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import Mask, MatMul, Sum
from qkf_deploy.simulators.run import Run, is_neuron

#: Rows of Table 4: which node of a Q-K attention block each one is, by the end of its name.
_ROWS: Mapping[str, tuple[str, ...]] = {
    "Q": ("q_lif",),
    "K": ("k_lif",),
    "A_t": ("attn_lif",),
    "X'": ("mask",),
    "projection": ("proj_lif",),
    "MLP layer 1": ("mlp.fc1_lif", "mlp.mlp1_lif"),
    "MLP layer 2": ("mlp.fc2_lif", "mlp.mlp2_lif"),
}


@dataclass(frozen=True)
class BlockRates:
    """Firing rates of one Q-K attention block (spikes per element and step), by row of Table 4."""

    block: str
    rates: Mapping[str, Fraction]


@dataclass(frozen=True)
class MeasuredMoments:
    """An attention sum over all elements, steps and images, against theory at the measured rates.

    Attributes:
        node: where.
        kind: ``Q-K sum`` or ``SSA``.
        rates: of Q (and K, V).
        measured: population mean and variance.
        theory: Eq. 15-20.
        shared: for SSA, independent spikes but products that share them; else as ``theory``.
    """

    node: str
    kind: str
    rates: tuple[float, ...]
    measured: statistics.Moments
    theory: statistics.Moments
    shared: statistics.Moments


def recorded_nodes(graph: Graph) -> tuple[str, ...]:
    """What a run must record for :func:`moments` and :func:`figure_3`."""
    wanted = []
    for node in graph:
        if _is_gate_sum(graph, node) or _is_ssa(graph, node):
            wanted += [node.name, *_spike_inputs(graph, node)]
        elif isinstance(node.op, Mask):
            wanted += [node.name, *(o.node for o in node.inputs)]
    return tuple(dict.fromkeys(wanted))


def block_rates(graph: Graph, ledger: Ledger) -> tuple[BlockRates, ...]:
    """Table 4 of this network: one entry per Q-K attention block."""
    out = []
    for node in graph:
        if not isinstance(node.op, Mask):
            continue
        attention = node.name.rpartition(".")[0]
        block = attention.rpartition(".")[0]
        rates = {}
        for row, ends in _ROWS.items():
            home = block if row.startswith("MLP") else attention
            name = next((f"{home}.{end}" for end in ends if f"{home}.{end}" in graph.nodes), None)
            if name is not None:
                rates[row] = _rate(ledger, name)
        out.append(BlockRates(block, rates))
    return tuple(out)


def _rate(ledger: Ledger, name: str) -> Fraction:
    layer = ledger[name]
    return Fraction(layer.total("events_out_unary"), layer.output_size * ledger.time_steps * ledger.images)


def moments(graph: Graph, run: Run) -> tuple[MeasuredMoments, ...]:
    """Expectation and variance of every attention sum, measured and in theory."""
    out = []
    for node in graph:
        if _is_gate_sum(graph, node):
            q = graph.input_types(node)[0]
            size = q.size // max(node.type.size, 1)
            rate = float(np.mean(run.values[node.inputs[0].node]))
            theory = statistics.token_attention(size, rate)
            out.append(_measured(node, "Q-K sum", run, (rate,), theory, theory))
        elif _is_ssa(graph, node):
            first = graph[node.inputs[1].node]
            tokens = graph.input_types(first)[0].shape[-1]
            names = _spike_inputs(graph, node)
            rates = tuple(float(np.mean(run.values[n])) for n in names)
            arguments = (graph.input_types(node)[0].shape[-1], tokens, *rates)
            theory, shared = statistics.self_attention(*arguments), statistics.self_attention_shared(*arguments)
            out.append(_measured(node, "SSA", run, rates, theory, shared))
    return tuple(out)


def _measured(
    node: Node,
    kind: str,
    run: Run,
    rates: tuple[float, ...],
    theory: statistics.Moments,
    shared: statistics.Moments,
) -> MeasuredMoments:
    values = np.asarray(run.values[node.name], dtype=np.float64)
    return MeasuredMoments(
        node.name, kind, rates, statistics.Moments(float(values.mean()), float(values.var())), theory, shared
    )


def _is_gate_sum(graph: Graph, node: Node) -> bool:
    return isinstance(node.op, Sum) and node.op.role == "attention" and is_neuron(graph[node.inputs[0].node].op.kind)


def _is_ssa(graph: Graph, node: Node) -> bool:
    """The second product, Q (K^T V): its right operand is a product of spikes."""
    return isinstance(node.op, MatMul) and isinstance(graph[node.inputs[1].node].op, MatMul)


def _spike_inputs(graph: Graph, node: Node) -> tuple[str, ...]:
    if isinstance(node.op, Sum):
        return (node.inputs[0].node,)
    first = graph[node.inputs[1].node]
    return (node.inputs[0].node, *(o.node for o in first.inputs))


def figure_3(graph: Graph, run: Run, step: int = -1) -> bytes | None:
    """Figure 3 of the paper for the first image and the first Q-K attention: PNG bytes.

    For each head, from top to bottom: attention vector, K, masked output; channels downwards, tokens to the right,
    black is a spike. ``None`` where the network has no such attention.
    """
    for node in graph:
        if isinstance(node.op, Mask):
            shape = graph.input_types(node)[1].shape
            gate, k = (_read(run, o)[step, 0] for o in node.inputs)
            return _panels(gate, k.reshape(shape), np.asarray(run.values[node.name])[step, 0].reshape(shape))
    return None


def _read(run: Run, operand: Operand) -> np.ndarray:
    value = np.asarray(run.values[operand.node])
    return value if operand.view is None else operand.view.apply(value)


def _panels(gate: np.ndarray, k: np.ndarray, masked: np.ndarray) -> bytes:
    """All heads below each other, a grey line after each panel; ``gate`` broadcasts to ``(heads, C, tokens)``."""
    heads, channels, tokens = k.shape
    line = np.full((1, tokens), 128, np.uint8)
    thick = max(channels // 8, 2)  # an attention vector over tokens is one row: draw it as a band
    rows = []
    for head in range(heads):
        vector = np.broadcast_to(gate[head], (thick if gate.shape[1] == 1 else channels, tokens))
        for panel in (vector, k[head], masked[head]):
            rows += [255 - 255 * np.minimum(panel, 1).astype(np.uint8), line]
    buffer = io.BytesIO()
    pixels = np.concatenate(rows).repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(pixels, mode="L").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
