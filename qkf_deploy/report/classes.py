"""What a network answered: classes per image, accuracy, counts in short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qkf_deploy.report.formats import Column, Sheet, si

if TYPE_CHECKING:
    from qkf_deploy.simulators.run import Run

#: The counts a user sees at once; the run file has all of them.
_SHOWN = (
    "ac_unary",
    "ac_graded",
    "mac",
    "coincidences",
    "gate_ands",
    "events_stopped",
    "neuron_updates_driven",
    "resets",
)


def answer_sheet(
    run: Run, names: Sequence[str], labels: np.ndarray | None, class_names: Sequence[str], top: int
) -> Sheet:
    """The ``top`` classes of every image with their logits, and its label where known; of other outputs the range.

    Args:
        run: the result.
        names: one per image.
        labels: class indices ``(B,)``.
        class_names: of the network; a class without one is shown by its index.
        top: classes per image.
    """

    def called(index: int) -> str:
        return class_names[index] if index < len(class_names) else str(index)

    if not run.classifies:
        return _range_sheet(run, names)
    logits = run.class_logits
    count = min(top, logits.shape[-1])
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    columns = [Column("image", "image", True), Column("label", "label", True)]
    for place in range(1, count + 1):
        columns += [Column(f"class_{place}", f"#{place}", True), Column(f"logit_{place}", "logit")]
    rows, shown = [], []
    for index, name in enumerate(names):
        row: list[str | float] = [name, "" if labels is None else called(int(labels[index]))]
        for c in order[index]:
            row += [called(int(c)), float(logits[index, c])]
        rows.append(tuple(row))
        shown.append(tuple(v if isinstance(v, str) else f"{v:.3f}" for v in row))
    return Sheet("classes", tuple(columns), tuple(rows), tuple(shown))


def _range_sheet(run: Run, names: Sequence[str]) -> Sheet:
    columns = (Column("image", "image", True), Column("shape", "output", True), Column("smallest", "smallest"),
               Column("largest", "largest"))  # fmt: skip
    shape = "x".join(map(str, run.output_shape)) or "1"
    ranges = [(float(y.min()), float(y.max())) for y in run.outputs.reshape(len(names), -1)]
    rows = tuple((name, shape, low, high) for name, (low, high) in zip(names, ranges, strict=True))
    shown = tuple((name, shape, f"{low:.6g}", f"{high:.6g}") for name, shape, low, high in rows)
    return Sheet("outputs", columns, rows, shown)


def run_summary(run: Run, labels: np.ndarray | None) -> str:
    """Accuracy, where labels are known and the output is one number per class, and the mean counts of an image."""
    lines = []
    ledger = run.ledger
    if labels is not None and not run.classifies:
        lines.append(f"accuracy: not defined for outputs of shape {run.output_shape}")
    elif labels is not None:
        right = int((run.predicted == labels).sum())
        lines.append(f"accuracy: {right} of {len(labels)} ({100 * right / len(labels):.2f} %)")
    counts = ", ".join(f"{name} {si(ledger.total(name) / ledger.images)}" for name in _SHOWN)
    lines.append(f"counts per image (mean of {ledger.images}): {counts}")
    return "\n".join(lines)
