"""What a network answered: classes per image, accuracy, counts in short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkf_deploy.ledger import Ledger
from qkf_deploy.report.formats import Column, Sheet, si

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


def class_sheet(
    logits: np.ndarray, names: Sequence[str], labels: np.ndarray | None, class_names: Sequence[str], top: int
) -> Sheet:
    """The ``top`` classes of every image with their logits, and its label where known.

    Args:
        logits: ``(B, classes)``.
        names: one per image.
        labels: class indices ``(B,)``.
        class_names: of the network; a class without one is shown by its index.
        top: classes per image.
    """

    def called(index: int) -> str:
        return class_names[index] if index < len(class_names) else str(index)

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


def run_summary(ledger: Ledger, logits: np.ndarray, labels: np.ndarray | None) -> str:
    """Accuracy, where labels are known, and the mean counts of an image."""
    lines = []
    if labels is not None:
        right = int((logits.argmax(-1) == labels).sum())
        lines.append(f"accuracy: {right} of {len(labels)} ({100 * right / len(labels):.2f} %)")
    counts = ", ".join(f"{name} {si(ledger.total(name) / ledger.images)}" for name in _SHOWN)
    lines.append(f"counts per image (mean of {ledger.images}): {counts}")
    return "\n".join(lines)
