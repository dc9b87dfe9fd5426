"""What a stored run holds, and how it is made of a network and its run."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Assumption, Graph
from qkf_deploy.ir.assumption import lines
from qkf_deploy.ir.digest import digest
from qkf_deploy.ledger import Ledger
from qkf_deploy.runs.first import Shown, input_picture
from qkf_deploy.runs.gates import gate_pictures
from qkf_deploy.runs.packing import pack, unpack
from qkf_deploy.runs.store import TOP, Head, Row
from qkf_deploy.runs.widths import width_rows
from qkf_deploy.simulators.counting import empty_ledger
from qkf_deploy.simulators.run import Run

_PACKAGES = ("qkf-deploy", "numpy", "torch", "spikingjelly", "numba", "onnxruntime")


@dataclass(frozen=True)
class RunFile:
    """A run read back. What is per sample is there for every sample with a result or an error, in order.

    Attributes:
        ledger: counts of the samples that ran.
        widths: one dictionary per node with proven widths, see :func:`qkf_deploy.runs.widths.width_rows`.
        graph: summary of the network: ``time_steps``, ``arithmetic``, ``nodes`` ...
        gates: Q-K gate pictures of the first image, see :func:`gate_pictures`.
        provenance: source hashes, versions, command.
        notices: sentences the user should read.
        network: digest of the network that ran (:func:`qkf_deploy.ir.digest.digest`).
        samples: N, of the whole data set: the denominator of an accuracy.
        data: digest of the data set; empty where it is not known.
        config: how it ran and where things were.
        class_names: of the logits.
        indices: positions in the data set.
        names: of the samples.
        labels: classes, ``None`` where unknown.
        predictions: index of the largest logit; ``None`` for an error, or where the output is not one number per class.
        top: the best classes, best first, five at most.
        errors: position -> one sentence, for samples that could not be run.
        input: the first sample as a picture, see :func:`qkf_deploy.runs.first.input_picture`, where it is one.
        activity: how often neurons fired, see :func:`qkf_deploy.runs.first.activity`, where it was looked at.
    """

    ledger: Ledger
    widths: tuple[Mapping[str, Any], ...]
    graph: Mapping[str, Any]
    gates: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, str]
    notices: tuple[str, ...]
    network: str
    samples: int
    data: str
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    indices: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    predictions: tuple[int | None, ...]
    top: tuple[tuple[int, ...], ...]
    errors: Mapping[int, str]
    input: Mapping[str, Any] | None = None
    activity: tuple[Mapping[str, Any], ...] = ()

    @property
    def complete(self) -> bool:
        """True if every sample of the data set ran."""
        return len(self.indices) == self.samples and not self.errors

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was assumed of the network's source, as lines for people."""
        return lines(tuple(Assumption(**a) for a in self.graph["assumptions"]))

    def check_network(self, graph: Graph) -> None:
        """Raises InputError unless this is a run of ``graph``."""
        if self.network != digest(graph):
            raise InputError(
                f"the run belongs to another network ({self.network[:12]}..., this one is {digest(graph)[:12]}...)",
                hint="run this one: `qkf-deploy simulate NETWORK IMAGES -o run.sqlite`",
            )


@dataclass(frozen=True)
class About:
    """What a run does not know of its images.

    Attributes:
        names: one per image; numbered where there are none.
        labels: class of each image, negative where unknown; or ``None``.
        data: digest of the data set; empty where it is not known.
        image: the first one, for its picture.
        place: ``data_path`` and ``data_options`` that the images are read again by; empty where they are not known.
    """

    names: Sequence[str] = ()
    labels: Sequence[int] | np.ndarray | None = None
    data: str = ""
    image: np.ndarray | None = None
    place: Mapping[str, Any] = field(default_factory=dict[str, Any])


def head(graph: Graph, data: str, samples: int, config: Mapping[str, Any]) -> Head:
    """What is known of a run before it begins.

    Args:
        graph: the network.
        data: digest of the data set.
        samples: how many it has.
        config: what else decides the result, or says where things are.
    """
    return Head(
        network=digest(graph),
        data=data,
        config=config,
        samples=samples,
        ledger=empty_ledger(graph),
        graph=graph.to_dict(),
        widths=tuple(width_rows(graph)),
        class_names=graph.class_names,
        provenance={**graph.provenance, **_versions(), "command": _command()},
        notices=graph.notices,
    )


def rows(run: Run, about: About = About()) -> list[Row]:
    """One row per image of a run, numbered from 0; an image whose logits are not finite is an error."""
    images = run.ledger.images
    for what, given in (("names", about.names), ("labels", () if about.labels is None else about.labels)):
        if len(given) not in (0, images) or (what == "labels" and about.labels is not None and len(given) != images):
            raise InputError(f"{len(given)} {what} of {images} images")
    names = about.names or [f"image {i}" for i in range(images)]
    labels = [None] * images if about.labels is None else [int(c) if c >= 0 else None for c in about.labels]
    best: list[tuple[int, ...]] = [()] * images
    finite: list[bool] = [True] * images
    if run.classifies:
        logits = run.class_logits
        finite = [bool(np.isfinite(image).all()) for image in logits]
        best = [tuple(order) for order in np.argsort(-logits, axis=-1, kind="stable")[:, :TOP].tolist()]
    found: list[Row] = []
    for index, blob in enumerate(pack(run.ledger)):
        name, label, top = names[index], labels[index], best[index]
        if finite[index]:
            found.append(Row(index, name, label, top[0] if top else None, top, blob))
        else:
            found.append(Row(index, name, label, None, (), b"", "the logits are not finite"))
    return found


def stored(graph: Graph, run: Run, about: About = About()) -> RunFile:
    """What is kept of a network's run."""
    described = head(graph, about.data, run.ledger.images, about.place)
    return content(described, rows(run, about), shown(graph, run, about).tables(), run.notices)


def shown(graph: Graph, run: Run, about: About) -> Shown:
    """What a page shows of the first sample of a run."""
    image = None if about.image is None else input_picture(about.image)
    return Shown(tuple(gate_pictures(graph, run)), image)


def content(
    head: Head, rows: Sequence[Row], gates: Sequence[Mapping[str, Any]] = (), notices: Sequence[str] = ()
) -> RunFile:
    """A run as its readers see it, from what is stored.

    Raises:
        InputError: nothing has run, damaged counts, or counts beyond the memory limit.
    """
    blobs = [row.counts for row in rows if row.error is None]
    if not blobs:
        raise InputError("no sample of this run has a result", hint="look at its errors, or go on with --resume")
    first = Shown.of(gates)
    layers = unpack(head.ledger.layers, blobs, head.ledger.time_steps)
    return RunFile(
        ledger=replace(head.ledger, images=len(blobs), layers=layers),
        widths=head.widths,
        graph=head.graph,
        gates=first.gates,
        provenance=head.provenance,
        notices=tuple(dict.fromkeys((*head.notices, *notices))),
        network=head.network,
        samples=head.samples,
        data=head.data,
        config=head.config,
        class_names=head.class_names,
        indices=tuple(row.index for row in rows),
        names=tuple(row.name for row in rows),
        labels=tuple(row.label for row in rows),
        predictions=tuple(row.prediction for row in rows),
        top=tuple(row.top for row in rows),
        errors={row.index: row.error for row in rows if row.error is not None},
        input=first.input,
        activity=first.activity,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _command(arguments: Sequence[str] | None = None) -> str:
    given = sys.argv if arguments is None else arguments
    return shlex.join([Path(given[0]).name, *given[1:]]) if given else ""
