"""The folder in which a Lava run is ordered and delivered: a graph and arrays in, arrays per node out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.bundle import load_graph, save_graph
from qkf_deploy.errors import EngineError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import Output
from qkf_deploy.options import Granularity
from qkf_deploy.simulators.lava.stepping import read_probe
from qkf_deploy.simulators.run import Record, Run, is_neuron


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        folder: where its files lie.
        graph: integer graph.
        inputs: ``(1, B, C, H, W)`` or ``(T, B, C, H, W)``, int64.
        record: values and membranes to keep.
        granularity: see :data:`qkf_deploy.options.Granularity`.
    """

    folder: Path
    graph: Graph
    inputs: np.ndarray
    record: Record
    granularity: Granularity

    @property
    def images(self) -> int:
        """B."""
        return self.inputs.shape[1]

    @property
    def progress(self) -> Path:
        """A file that grows by one byte per finished image."""
        return self.folder / "progress"

    @property
    def timings(self) -> Path:
        """Seconds of each phase, JSON; the last file a run writes."""
        return self.folder / "timings.json"

    def results(self, node: Node) -> Path:
        """What the probe of a node saved."""
        return self.folder / f"node-{list(self.graph.nodes).index(node.name):05d}.npz"


def write_job(job: Job) -> None:
    """Put the order into its folder."""
    save_graph(job.graph, job.folder / "net.qkf")
    np.save(job.folder / "inputs.npy", job.inputs)
    order = {
        "granularity": job.granularity,
        "values": sorted(job.record.values),
        "membranes": sorted(job.record.membranes),
    }
    (job.folder / "order.json").write_text(json.dumps(order))


def read_job(folder: Path) -> Job:
    """Inverse of :func:`write_job`."""
    order = json.loads((folder / "order.json").read_text())
    record = Record(frozenset(order["values"]), frozenset(order["membranes"]))
    inputs = np.load(folder / "inputs.npy", allow_pickle=False)
    return Job(folder, load_graph(folder / "net.qkf"), inputs, record, order["granularity"])


def collect(job: Job) -> Run:
    """The result of a finished run.

    Raises:
        EngineError: a node delivered nothing.
    """
    graph = job.graph
    layers, values, membranes = [], {}, {}
    if graph.input.name in job.record.values:
        values[graph.input.name] = job.inputs
    raw = np.zeros(0)
    for node in graph:
        if node.op.kind == "input":
            continue
        path = job.results(node)
        if not path.is_file():
            raise EngineError("the Lava run ended without a result for this node", where=node.name)
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        layers.append(read_probe(graph, node, arrays))
        if node.name in job.record.values:
            values[node.name] = arrays["value"]
        if "membrane" in arrays:
            membranes[node.name] = arrays["membrane"]
        if isinstance(node.op, Output):
            raw = arrays["value"]
    output = graph.output
    if not isinstance(output.op, Output):
        raise EngineError("the output node has no output operator", where=output.name)
    ledger = Ledger(
        graph.time_steps, job.images, graph.arithmetic, graph.input_encoding, tuple(layers), graph.provenance
    )
    spikes = {k: v for k, v in values.items() if is_neuron(graph[k].op.kind)}
    return Run(output.op.logits(raw, output.params), raw, ledger, spikes, values, membranes)
