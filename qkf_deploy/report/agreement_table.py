"""How far torch model, float graph and integer graph agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate

if TYPE_CHECKING:
    from qkf_deploy.evaluation.agreement import Agreement, LayerAgreement

_FIELDS: tuple[Field[tuple[LayerAgreement, LayerAgreement]], ...] = (
    Field("layer", "layer", lambda r: r[0].name, left=True),
    summed("neuron_outputs", "outputs", lambda r: r[0].outputs),
    summed("spikes", "spikes", lambda r: r[0].spikes),
    summed("torch_float_differ_forced", "torch≠float forced", lambda r: r[0].differ_forced),
    summed("torch_float_ties", "ties", lambda r: r[0].differ_ties),
    summed("torch_float_differ_free", "torch≠float free", lambda r: r[0].differ_free),
    summed("float_integer_differ_forced", "float≠integer forced", lambda r: r[1].differ_forced),
    summed("float_integer_differ_free", "float≠integer free", lambda r: r[1].differ_free),
)


def agreement_sheet(first: Agreement, second: Agreement) -> Sheet:
    """One row per neuron layer: torch against float graph, float graph against integer graph."""
    return tabulate("spike agreement", _FIELDS, zip(first.layers, second.layers, strict=True))


def summary(first: Agreement, second: Agreement) -> str:
    """Logits and classes, in two lines."""
    return "\n".join(
        [
            f"torch against float graph: logits differ by at most {first.logit_difference:.3g}, "
            f"same class on {first.same_class} of {quantity(first.images, 'image')}",
            f"float against this graph:  logits differ by at most {second.logit_difference:.3g}, "
            f"same class on {second.same_class} of {quantity(second.images, 'image')}",
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
