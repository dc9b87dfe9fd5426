"""What a stored run holds, and how it is made of a network and its run."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Assumption, Graph
from qkf_deploy.ir.assumption import lines
from qkf_deploy.ir.digest import digest
from qkf_deploy.ledger import Ledger
from qkf_deploy.runs.gates import gate_pictures
from qkf_deploy.runs.widths import width_rows
from qkf_deploy.simulators.run import Run

SCHEMA_VERSION = 1
KIND = "qkf-run"
_PACKAGES = ("qkf-deploy", "numpy", "torch", "spikingjelly", "numba", "onnxruntime")


@dataclass(frozen=True)
class RunFile:
    """A run read back.

    Attributes:
        ledger: counts.
        widths: one dictionary per node with proven widths, see :func:`qkf_deploy.runs.widths.width_rows`.
        graph: summary of the network: ``time_steps``, ``arithmetic``, ``nodes`` ...
        gates: Q-K gate pictures of the first image, see :func:`gate_pictures`.
        predictions: index of the largest logit per image; empty where the output is not one number per class.
        provenance: source hashes, versions, command.
        notices: sentences the user should read.
        network: digest of the network that ran (:func:`qkf_deploy.ir.digest.digest`).
    """

    ledger: Ledger
    widths: tuple[Mapping[str, Any], ...]
    graph: Mapping[str, Any]
    gates: tuple[Mapping[str, Any], ...]
    predictions: tuple[int, ...]
    provenance: Mapping[str, str]
    notices: tuple[str, ...]
    network: str

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was assumed of the network's source, as lines for people."""
        return lines(tuple(Assumption(**a) for a in self.graph["assumptions"]))

    def check_network(self, graph: Graph) -> None:
        """Raises InputError unless this is a run of ``graph``."""
        if self.network != digest(graph):
            raise InputError(
                "the run belongs to another network",
                hint="run this one: `qkf-deploy simulate NETWORK IMAGES -o run.json`",
            )


def stored(graph: Graph, run: Run) -> RunFile:
    """What is kept of a network's run."""
    return RunFile(
        ledger=run.ledger,
        widths=tuple(width_rows(graph)),
        graph=graph.to_dict(),
        gates=tuple(gate_pictures(graph, run)),
        predictions=tuple(run.predicted.tolist()) if run.classifies else (),
        provenance={**graph.provenance, **_versions(), "command": _command()},
        notices=(*graph.notices, *run.notices),
        network=digest(graph),
    )


def run_data(graph: Graph, run: Run) -> dict[str, Any]:
    """Content of a run file as plain data."""
    return {"schema_version": SCHEMA_VERSION, "kind": KIND, **vars(stored(graph, run)), "ledger": run.ledger.to_dict()}


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
