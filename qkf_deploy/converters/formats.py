"""Which operator each interchange format can say: one declared table, used by the docs and by the conformance test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["yes", "partly", "no"]
FORMATS = ("qkf", "onnx", "nir", "nir-annotated", "nir-parts")


@dataclass(frozen=True)
class Support:
    """One cell of the table.

    Attributes:
        verdict: ``yes`` always, ``partly`` under the condition of ``how``, ``no`` for the reason in ``how``.
        how: what it becomes, or why not.
    """

    verdict: Verdict
    how: str


def _yes(how: str) -> Support:
    return Support("yes", how)


def _partly(how: str) -> Support:
    return Support("partly", how)


def _no(how: str) -> Support:
    return Support("no", how)


#: Operator -> what ONNX does with it.
ONNX: Mapping[str, Support] = {
    "input": _yes("graph input: uint8 pixels, int32 integers or float"),
    "output": _yes("`logits`, and `raw_output` of integer graphs"),
    "conv": _yes("Conv in float32; beyond 24 bits one float64 MatMul per tap; in front of transposed ones a Pad"),
    "linear": _yes("MatMul"),
    "batch_norm": _yes("Mul and Add"),
    "neuron": _partly("Div, Add, GreaterOrEqual, Where; not with membranes carried over between images"),
    "integer_neuron": _partly("Mul, Floor, GreaterOrEqual, Where; not with membranes carried over between images"),
    "max_pool": _yes("MaxPool"),
    "sum_pool": _yes("Conv with ones"),
    "add": _yes("Add"),
    "concat": _yes("Concat"),
    "mask": _yes("Where; Mul with a gate of signed events"),
    "scale": _yes("Mul"),
    "shift": _yes("Add, Mul by a power of two, Floor"),
    "matmul": _partly("MatMul, ReduceSum over chunks of time steps; those not in the form of one step"),
    "sum": _yes("ReduceSum"),
    "readout": _yes("ReduceSum over time; a state in the single-step form"),
}

#: Operator -> what stock NIR can say of it.
NIR: Mapping[str, Support] = {
    "input": _yes("Input"),
    "output": _yes("Output; the mean over time of its steps is the result"),
    "conv": _partly(
        "Conv2d; not with groups, transposed, with a bias that depends on the border, nor 1-d windows wider than 1"
    ),
    "linear": _partly("Flatten, Affine or Linear; not over one axis of several"),
    "batch_norm": _yes("folded into the convolution before it; a Conv2d where there is none"),
    "neuron": _partly(
        "LIF, IF; not with soft reset, several, rounded or signed spikes per step, a lower bound, nor membranes that "
        "start elsewhere than at rest or are carried over between images"
    ),
    "integer_neuron": _partly(
        "LIF (τ = 2), IF, thresholds between membrane values; not with soft reset, other decays, several, rounded or "
        "signed spikes per step, nor membranes that start elsewhere than at rest"
    ),
    "max_pool": _partly("of spikes: Conv2d and LIF (an OR); of drives: NIR has no maximum"),
    "sum_pool": _yes("SumPool2d; Conv2d where there is padding"),
    "add": _partly("edges that meet; not a value with itself or with axes in another order"),
    "concat": _no("NIR has no node for it"),
    "mask": _partly("Conv2d and LIF (an AND) of spikes; not of counts, signed events or slices"),
    "scale": _yes("folded into weights; Scale where it cannot be"),
    "shift": _no("NIR has no rounding"),
    "matmul": _no("NIR has no product of two activations"),
    "sum": _partly("Conv2d with ones, AvgPool2d in the readout; not over some of the positions"),
    "readout": _yes("left to the reader: mean over time"),
}


_UNWRITTEN = _no("nobody has written it yet")


def support(operator: str, form: str) -> Support:
    """One cell.

    Args:
        operator: name in files, e.g. ``max_pool``.
        form: one of :data:`FORMATS`.
    """
    if form == "qkf":
        return _yes("stored as it is")
    if form == "onnx":
        return ONNX.get(operator, _UNWRITTEN)
    cell = NIR.get(operator, _UNWRITTEN)
    if form == "nir" or cell.verdict == "yes":
        return cell
    otherwise = "a stand-in" if form == "nir-annotated" else "executed by the reader of the manifest"
    return _yes(f"{otherwise}: {cell.how}" if cell.verdict == "no" else f"{cell.how}: then {otherwise}")


def markdown() -> str:
    """The table for the docs."""
    rows = ["| operator | ONNX | stock NIR (portable) |", "|---|---|---|"]
    for name in sorted(ONNX):
        cells = " | ".join(f"**{s.verdict}**: {s.how}" for s in (ONNX[name], NIR[name]))
        rows.append(f"| `{name}` | {cells} |")
    return "\n".join(rows) + "\n"
