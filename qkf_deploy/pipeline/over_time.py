"""What a network answers after every time step, in memory that does not grow with T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import checked
from qkf_deploy.simulators import chunks
from qkf_deploy.simulators.inputs import encode

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

#: Array elements of one value, all images and steps of a chunk.
_ELEMENTS = 2**23


@dataclass(frozen=True, repr=False)
class OverTime(SelfDescribing):
    """Answers after every time step.

    Attributes:
        predicted: index of the largest logit after each step, int64 ``(T, B)``.
        logits: of the last step, ``(B, *shape)``.
        labels: class of every image, int64 ``(B,)``; ``None`` where unknown.
    """

    predicted: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None = None

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers after each step, ``(T,)``. Raises InputError without labels."""
        if self.labels is None:
            raise InputError("accuracy needs labels", hint="give the class of every image")
        return (self.predicted == self.labels).mean(axis=1)

    @property
    def agreement(self) -> np.ndarray:
        """Share of images whose answer after each step is that of the last step, ``(T,)``."""
        return (self.predicted == self.predicted[-1]).mean(axis=1)

    def sheet(self) -> Sheet:
        """One row per power of two of steps, and the last one."""
        steps = len(self.predicted)
        rows = sorted({steps, *(2**k for k in range(steps.bit_length()) if 2**k <= steps)})
        right: list[Field[int]] = []
        if self.labels is not None:
            right = [Field("accuracy", "accuracy", lambda t: float(self.accuracy[t - 1]), "{:.2%}".format)]
        same: Field[int] = Field("agreement", "as at the end", lambda t: float(self.agreement[t - 1]), "{:.2%}".format)
        return tabulate("accuracy over time", [Field("time_steps", "T", lambda t: t), *right, same], rows)

    def overview(self) -> Overview:
        """The rows of :meth:`sheet`."""
        steps, images = self.predicted.shape
        return Overview(
            f"answers after 1 to {quantity(steps, 'time step')} of {quantity(images, 'image')}", self.sheet()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: accuracy, where labels are known, and agreement with the last step, after each step."""
        accuracy = None if self.labels is None else self.accuracy.tolist()
        return {"accuracy": accuracy, "agreement": self.agreement.tolist()}

    def to_pandas(self) -> DataFrame:
        """One row per time step. Raises MissingComponent without pandas."""
        rows = [
            {"time_steps": t + 1, "agreement": float(self.agreement[t])}
            | ({} if self.labels is None else {"accuracy": float(self.accuracy[t])})
            for t in range(len(self.predicted))
        ]
        return data_frame(rows, list(rows[0]), time_steps=len(rows))


@checked
def over_time(
    graph: Graph, images: np.ndarray, labels: Sequence[int] | np.ndarray | None = None, *, chunk: int = 16
) -> OverTime:
    """Run a network once and read it out after every step: the answers of all shorter T too.

    Only a chunk of steps is held at a time, membranes are carried on, so T may be thousands. After t steps a mean over
    time is that of t steps, as if the network had been made for t.

    Args:
        graph: float or integer, with a readout.
        images: as :func:`simulate` takes them.
        labels: class of every image.
        chunk: time steps held at once.

    Raises:
        UsageError: a chunk without steps.
        InputError: images or labels that do not fit.
        UnsupportedError: a network without a readout, or without an output that is one number per class, or whose steps
            do not come one after the other.
    """
    if chunk < 1:
        raise UsageError(f"chunk: {chunk}", hint="use 1 or more")
    encoded, _ = encode(graph, images)
    total = encoded.shape[1]
    given = None if labels is None else np.asarray(labels)
    if given is not None and (given.shape != (total,) or given.dtype.kind not in "iu"):
        raise InputError(f"labels of shape {given.shape} for {quantity(total, 'image')}", hint="one class index each")
    largest = max(node.type.size for node in graph) * min(chunk, graph.time_steps)
    size = max(1, _ELEMENTS // largest)
    found = [chunks.run(graph, encoded[:, i : i + size], chunk) for i in range(0, total, size)]
    predicted = np.concatenate([f.largest for f in found], axis=1)
    return OverTime(predicted, np.concatenate([f.logits for f in found]), given)
