"""What a network answered: classes per image, accuracy, counts in short."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from qkf_deploy.display.numbers import decimals, ratio, si
from qkf_deploy.display.tables import Field, Sheet, tabulate

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

    if not run.classifies:
        return _range_sheet(run, names)
    logits = run.class_logits
    count = min(top, logits.shape[-1])
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :count]

    def called(index: int) -> str:
        return class_names[index] if index < len(class_names) else str(index)

    def ranked(place: int) -> tuple[Field[int], Field[int]]:
        return (
            Field(f"class_{place + 1}", f"#{place + 1}", lambda i: called(int(order[i, place])), left=True),
            Field(f"logit_{place + 1}", "logit", lambda i: float(logits[i, order[i, place]]), decimals(3)),
        )

    fields: list[Field[int]] = [
        Field("image", "image", lambda i: names[i], left=True),
        Field("label", "label", lambda i: "" if labels is None else called(int(labels[i])), left=True),
        *(field for place in range(count) for field in ranked(place)),
    ]
    return tabulate("classes", fields, range(len(names)))


def _range_sheet(run: Run, names: Sequence[str]) -> Sheet:
    shape = "x".join(map(str, run.output_shape)) or "1"
    outputs = run.outputs.reshape(len(names), -1)
    fields: tuple[Field[int], ...] = (
        Field("image", "image", lambda i: names[i], left=True),
        Field("shape", "output", lambda _: shape, left=True),
        Field("smallest", "smallest", lambda i: float(outputs[i].min()), partial(ratio, digits=6)),
        Field("largest", "largest", lambda i: float(outputs[i].max()), partial(ratio, digits=6)),
    )
    return tabulate("outputs", fields, range(len(names)))


def run_summary(run: Run, labels: np.ndarray | None) -> str:
    """Accuracy, where labels are known and the output is one number per class, and the mean counts of an image."""
    lines = []
    ledger = run.ledger
    if labels is not None and not run.classifies:
        lines.append(f"accuracy: not defined for outputs of shape {run.output_shape}")
    elif labels is not None:
        right = int((run.predicted == labels).sum())
        lines.append(f"accuracy: {right} of {len(labels)} ({100 * right / len(labels):.2f} %)")
    for name, values in run.named_outputs.items() if run.parts else ():
        shape = "x".join(map(str, values.shape[1:])) or "1"
        lines.append(f"output {name} ({shape}): {values.min():.6g} to {values.max():.6g}")
    counts = ", ".join(f"{name} {si(ledger.total(name) / ledger.images)}" for name in _SHOWN)
    lines.append(f"counts per image (mean of {ledger.images}): {counts}")
    return "\n".join(lines)
