"""How far torch model, float graph and integer graph agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qkf_deploy.report.formats import Column, Sheet

if TYPE_CHECKING:
    from qkf_deploy.evaluation.agreement import Agreement

_COLUMNS = (
    Column("layer", "layer", True),
    Column("neuron_outputs", "outputs"),
    Column("spikes", "spikes"),
    Column("torch_float_differ_forced", "torch≠float forced"),
    Column("torch_float_ties", "ties"),
    Column("torch_float_differ_free", "torch≠float free"),
    Column("float_integer_differ_forced", "float≠integer forced"),
    Column("float_integer_differ_free", "float≠integer free"),
)


def agreement_sheet(first: Agreement, second: Agreement) -> Sheet:
    """One row per neuron layer: torch against float graph, float graph against integer graph."""
    rows = [
        (a.name, a.outputs, a.spikes, a.differ_forced, a.differ_ties, a.differ_free, b.differ_forced, b.differ_free)
        for a, b in zip(first.layers, second.layers, strict=True)
    ]
    shown = [tuple(v if isinstance(v, str) else f"{v:,}" for v in row) for row in rows]
    totals = [f"{sum(v for row in rows if isinstance(v := row[i], int)):,}" for i in range(1, len(_COLUMNS))]
    return Sheet("spike agreement", _COLUMNS, tuple(rows), tuple(shown), ("total", *totals))


def summary(first: Agreement, second: Agreement) -> str:
    """Logits and classes, in two lines."""
    return "\n".join(
        [
            f"torch against float graph: logits differ by at most {first.logit_difference:.3g}, "
            f"same class on {first.same_class} of {first.images} images",
            f"float against this graph:  logits differ by at most {second.logit_difference:.3g}, "
            f"same class on {second.same_class} of {second.images} images",
        ]
    )


def accuracy_lines(first: Agreement, second: Agreement, labels: np.ndarray, name: str) -> str:
    """Accuracy of the torch model, the float graph and the network called ``name``, and the spikes that differ."""
    rows = (
        ("float64 torch model", first.reference_predicted),
        ("float64 graph", first.predicted),
        (name, second.predicted),
    )
    lines = [
        f"{title:<24} {(p == labels).sum()} of {len(labels)} right = {(p == labels).mean():.2%}" for title, p in rows
    ]
    lines.append(
        f"spikes that differ: torch / float graph {first.differ_free:,}; float / integer graph "
        f"{second.differ_forced:,} when every layer is fed the float spikes, {second.differ_free:,} when it runs free; "
        f"of {second.outputs:,} neuron outputs"
    )
    return "\n".join(lines)
