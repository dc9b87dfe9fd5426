"""Leftover membranes: found on a chain of images, and what the carry modes answer, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkf_deploy.calibration.carry_report import Answers, CarryReport
from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.ops.membrane import Carry
from qkf_deploy.passes.carry import channel_means, membranes, merged, with_carry
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record
from qkf_deploy.statistics.measures import Share, flips, mcnemar


@dataclass(frozen=True)
class Setting:
    """How modes are compared.

    Attributes:
        batch: images per batch of ``official``.
        chain: images that the leftovers come from.
        average: of them, whose leftovers are averaged.
        engine, engine_options: of :data:`qkf_deploy.simulators.engines.ENGINES`.
        progress: called with (modes done, modes in all).
    """

    batch: int
    chain: int
    average: int
    engine: str
    engine_options: Mapping[str, Any]
    progress: Callable[[int, int], None] | None = None


def carry(
    graph: Graph, mode: Carry, images: np.ndarray | None = None, *, per_channel: bool = False, average: int = 1
) -> Graph:
    """The graph with another carry for all neurons whose time axis the model merged with the batch.

    Args:
        graph: float or integer.
        mode: ``own``, ``official`` or ``stored``.
        images: calibration images for ``stored``: they run as one batch, and the last one's leftover at each step is
            what every image will start that step from.
        per_channel: those leftovers averaged over all positions of a channel.
        average: images, the last ones, whose leftovers are averaged.

    Raises:
        UsageError: no such neuron, missing calibration images, or fewer than are averaged.
        UnsupportedError: ``per_channel`` of a neuron whose channels are not known.
        ProofError: a membrane without bound when images carry it over.
    """
    merged(graph)
    if (mode == "stored") != (images is not None):
        raise UsageError("carry 'stored', and only it, needs calibration images")
    if images is None:
        return with_carry(graph, mode)
    found = leftovers(graph, images, average)
    if per_channel:
        found = {name: channel_means(graph, name, left) for name, left in found.items()}
    return with_carry(graph, mode, found)


def leftovers(graph: Graph, images: np.ndarray, average: int = 1) -> dict[str, np.ndarray]:
    """Membranes after each step of the last image of a batch, for every merged neuron.

    Args:
        graph: float or integer.
        images: run as one batch, in this order, with carry ``official``.
        average: images, the last ones, that the membranes are averaged over.

    Returns:
        By neuron, ``(T, *shape)``: float64 V - V_reset, or int64 M, rounded half to even.

    Raises:
        UsageError: fewer images than are averaged.
    """
    if not 1 <= average <= len(images):
        raise UsageError(
            f"leftovers averaged over {average} of {len(images)} images",
            hint="average fewer, or choose a longer --chain",
        )
    chain = with_carry(graph, "official")
    names = merged(chain)
    inputs = encode(chain, images)[0]
    record = Record.of(chain, [chain[name].inputs[0].node for name in names])
    values = engines.comparable(chain, inputs.shape[1])(chain, inputs, record).values
    found: dict[str, np.ndarray] = {}
    for name in names:
        node = chain[name]
        operand, op = node.inputs[0], node.op
        drive = values[operand.node] if operand.view is None else operand.view.apply(values[operand.node])
        if isinstance(op, Neuron | IntegerNeuron):
            last = op.leftovers((drive,), node.params, chain.time_steps)[:, -average:]
            found[name] = last[:, 0] if average == 1 else membranes(chain, last.mean(axis=1))
    return found


def compare_modes(
    graph: Graph, images: np.ndarray, labels: np.ndarray | None, left: Mapping[str, np.ndarray], setting: Setting
) -> CarryReport:
    """What own, official, stored in full and stored per channel answer on the same images.

    Args:
        graph: float or integer; whatever its carry is.
        images: as :func:`qkf_deploy.simulators.inputs.encode` takes them.
        labels: class of each, negative where unknown; ``None`` without labels.
        left: of :func:`leftovers`.
        setting: batches and engine.

    Raises:
        UsageError: a network whose output is not one number per class.
    """
    modes = {"own": with_carry(graph, "own"), "official": with_carry(graph, "official")}
    modes["stored, full"] = with_carry(graph, "stored", left)
    notes: tuple[str, ...] = ()
    try:
        means = {name: channel_means(graph, name, value) for name, value in left.items()}
        modes["stored, per channel"] = with_carry(graph, "stored", means)
    except UnsupportedError as error:
        notes = (f"no averages per channel: {error.message}",)
    inputs = encode(graph, images)[0]
    answers: dict[str, list[int]] = {}
    for done, (name, network) in enumerate(modes.items()):
        answers[name] = _answers(network, inputs, setting)
        if setting.progress is not None:
            setting.progress(done + 1, len(modes))
    known = None if labels is None else [int(label) if label >= 0 else None for label in labels]
    rows = tuple(
        _compared(name, found, answers["official"], known, _stored(modes[name])) for name, found in answers.items()
    )
    return CarryReport(rows, len(images), setting.batch, setting.chain, setting.average, notes)


def _answers(graph: Graph, inputs: np.ndarray, setting: Setting) -> list[int]:
    """The class of each image: batches of the official size, in order."""
    run = engines.get(setting.engine, graph, setting.engine_options, inputs.shape[1])
    found: list[int] = []
    for start in range(0, inputs.shape[1], setting.batch):
        part = run(graph, inputs[:, start : start + setting.batch], Record(), None)
        if not part.classifies:
            raise UsageError(
                "carry modes are compared by their answers, and the output is not one number per class",
                hint="choose a mode with `qkf_deploy.carry`",
            )
        found += [int(best) for best in part.predicted]
    return found


def _compared(
    name: str, answers: list[int], official: list[int], labels: Sequence[int | None] | None, stored: int
) -> Answers:
    agreement = Share.of(sum(a == b for a, b in zip(answers, official, strict=True)), len(answers))
    if labels is None or all(label is None for label in labels):
        return Answers(name, None, agreement, None, None, stored)
    known = [(label, a, b) for label, a, b in zip(labels, answers, official, strict=True) if label is not None]
    truth, mine, theirs = ([row[i] for row in known] for i in range(3))
    accuracy = Share.of(sum(a == label for label, a in zip(truth, mine, strict=True)), len(known))
    changed = flips(truth, theirs, mine)
    test = mcnemar(changed.right_to_wrong, changed.wrong_to_right)
    return Answers(name, accuracy, agreement, changed, test, stored)


def _stored(graph: Graph) -> int:
    return sum(node.params["leftover"].size for node in graph if "leftover" in node.params)
