"""Spike audit: is every synapse driven by spikes, and is anything between two neurons multiplied by a float?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qkf_deploy.ir import Graph, Kind, Node, ValueType
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import BatchNorm, Conv, IntegerNeuron, Linear, MatMul, Neuron, Output, Scale
from qkf_deploy.passes.decay import nearest


@dataclass(frozen=True)
class Finding:
    """One sentence about one node.

    Attributes:
        node: its name.
        severity: ``ok`` spike-driven as published; ``note`` worth knowing; ``warning`` breaks the spike-driven claim.
        text: the sentence.
    """

    node: str
    severity: str
    text: str


def input_words(type_: ValueType) -> str:
    """Input kind of a synaptic layer in words: ``binary``, ``count up to 4``, ``real``."""
    if type_.kind is Kind.SPIKE:
        return "binary"
    if type_.kind is Kind.COUNT:
        return "count" if type_.high is None else f"count up to {type_.high}"
    if type_.is_signed:
        return "ternary" if type_.high == 1 else "signed" if type_.high is None else f"signed up to {type_.high}"
    if type_.kind is Kind.REAL:
        return "real"
    return "drive"


def audit(graph: Graph) -> tuple[Finding, ...]:
    """Findings in network order.

    Synapses: what their input is, and whether they wait for later time steps. Neurons: a time axis merged with the
    batch, a decay that is not dyadic. Between neurons: batch norms that are left and multiplications by a constant.
    """
    out: list[Finding] = []
    for node in graph:
        finding = _finding(graph, node)
        if finding is not None:
            out.append(finding)
    return tuple(out)


def _finding(graph: Graph, node: Node) -> Finding | None:
    op = node.op
    if isinstance(op, Conv | Linear | MatMul):
        return _synapse(graph, node)
    if isinstance(op, BatchNorm):
        return Finding(node.name, "note", "batch norm, gone after folding")
    if isinstance(op, Scale):
        return _scale(graph, node, op)
    if isinstance(op, Neuron | IntegerNeuron):
        return _neuron(node, op)
    return None


def _synapse(graph: Graph, node: Node) -> Finding:
    types = graph.input_types(node)
    words = " x ".join(input_words(t) for t in types)
    if node.op.steps_awaited > 1:
        waits = f"not causal: a chip must wait for all {node.op.steps_awaited} time steps of a chunk"
        return Finding(node.name, "warning", f"input {words}, {waits}")
    if any(t.timing is Timing.IMAGE for t in types):
        return Finding(node.name, "ok", f"input {words}: classifier after the readout, once per image")
    if all(t.is_events for t in types):
        what = "additions and subtractions only" if any(t.is_signed for t in types) else "additions only"
        return Finding(node.name, "ok", f"input {words}: {what}")
    if any(t.kind is Kind.REAL for t in types):
        return Finding(node.name, "note", "input real (pixels): multiply-accumulates")
    return Finding(node.name, "warning", "input is a drive that passed no neuron: multiply-accumulates at every step")


def _scale(graph: Graph, node: Node, op: Scale) -> Finding:
    power = abs(op.factor).hex().startswith("0x1.0000000000000p")
    where = _destination(graph, node)
    kind = "a power of two" if power else "not a power of two"
    return Finding(node.name, "note", f"multiplies by {op.factor:g} ({kind}); quantization moves it {where}")


def _destination(graph: Graph, node: Node) -> str:
    """Where quantization puts a scale: what reads it decides."""
    users = [user.op for user in graph.consumers()[node.name]]
    if any(isinstance(op, Neuron | IntegerNeuron) for op in users):
        return "into the next threshold"
    return "into the scale of the logits" if any(isinstance(op, Output) for op in users) else "into the next weights"


def _neuron(node: Node, op: Neuron | IntegerNeuron) -> Finding | None:
    if op.time_merged_with_batch:
        text = f"time axis merged with the batch in the model, whose accuracy assumes batches; here carry = {op.carry}"
        return Finding(node.name, "warning", text)
    if not isinstance(op, Neuron):
        return None
    levels = op.levels(node.params)
    if levels.kept is not None:
        values = np.unique(levels.kept if levels.tau is None else levels.tau)
        for value in values:
            if not nearest(float(value if levels.tau is None else 1.0 - 1.0 / value), 24).exact:
                written = f"{value:g}" if levels.tau is None else f"1 - 1/{value:g}"
                return Finding(node.name, "note", f"decay {written} is not dyadic: quantization approximates it")
    if op.reset_delay:
        return Finding(node.name, "note", "a spike is subtracted one step later: the membrane keeps what it fired with")
    return None


def or_gates(graph: Graph) -> tuple[str, ...]:
    """Integer neurons that are an OR of their inputs: fed by non-negative integers with threshold 1, they keep nothing.

    Such a neuron fires exactly when its input is at least 1 and is reset to 0 whenever it does; the Q-K gates of
    published QKFormers (V_th 0.5, τ 2) are of this kind.
    """
    found: list[str] = []
    for node in graph:
        if (
            not isinstance(node.op, IntegerNeuron)
            or node.op.fraction_bits
            or node.op.soft_reset
            or node.op.graded
            or node.op.strict
            or {"initial", "leftover"} & set(node.params)
        ):
            continue
        (type_,) = graph.input_types(node)
        if type_.is_counts and (node.params["theta"] == 1).all():
            found.append(node.name)
    return tuple(found)
