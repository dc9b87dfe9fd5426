"""Does an exported network still compute the same? Run it in every installed client and compare with the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.converters.nir.builder import placed_array
from qkf_deploy.converters.nir.chains import CHAINS
from qkf_deploy.converters.nir.clients import CLIENTS, Client, installed, own
from qkf_deploy.converters.nir.export import export_nir, folded, lower
from qkf_deploy.converters.nir.partition import export_parts, load_parts, run_parts
from qkf_deploy.errors import CheckFailed, MissingComponent, QkfError
from qkf_deploy.ir import Graph
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, is_neuron

#: Name of this package's own reading of the stock nodes among the clients.
OWN = "qkf-deploy"


@dataclass(frozen=True)
class CheckResult:
    """One client on one export.

    Attributes:
        client: its name.
        compared: spikes (or values at the cuts) compared with the reference engine.
        different: how many of them differ.
        logits_error: largest difference of a logit.
        refused: what the client said if it would not run the file, else empty.
        missing: it did not run because something is not installed.
    """

    client: str
    compared: int = 0
    different: int = 0
    logits_error: float = 0.0
    refused: str = ""
    missing: bool = False

    @classmethod
    def of(cls, client: str, error: QkfError) -> CheckResult:
        """A client that did not run."""
        return cls(client, refused=error.message, missing=isinstance(error, MissingComponent))

    @property
    def same(self) -> bool:
        """True if the client ran the export and nothing differed."""
        return not self.refused and self.different == 0


def require_compared(results: list[CheckResult]) -> None:
    """Nothing compared is not a pass.

    Raises:
        MissingComponent: nothing was compared because no client is installed, or none completely.
        CheckFailed: every client refused the export, or it has no spikes to compare.
    """
    if any(r.compared for r in results):
        return
    said = "; ".join(f"{r.client}: {r.refused or 'ran, and the network has no spikes to compare'}" for r in results)
    message = f"the export was compared with nothing ({said or 'no client is installed'})"
    if all(r.missing for r in results):
        raise MissingComponent(message, hint="pip install 'qkf-deploy[torch,nir,onnx]'")
    raise CheckFailed(message, hint="--partitioned is checked in this package's own reader too, ONNX in ONNX Runtime")


def sample_images(graph: Graph, count: int = 4, seed: int = 0) -> np.ndarray:
    """Random pixels (or event frames) with an empty and a saturated image among them."""
    rng = np.random.default_rng(seed)
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        shape = (graph.time_steps, *shape)
    high = min(graph.input.type.high or 255, 255)
    images = rng.integers(0, high + 1, (count, *shape), dtype=np.uint8)
    images[0], images[-1] = 0, high
    return images


def check_portable(graph: Graph, images: np.ndarray) -> list[CheckResult]:
    """Every neuron of the portable NIR file, in every installed client.

    Args:
        graph: float or integer.
        images: as :func:`qkf_deploy.api.simulate` takes them.
    """
    graph = folded(graph)
    x, _ = encode(graph, images)
    names = [n.name for n in graph if is_neuron(n.op.kind) or n.op.kind == "mask"]
    expected = reference.run(graph, x, Record.of(graph, names))
    places = lower(graph, "portable").values
    frames = np.broadcast_to(x, (graph.time_steps, *x.shape[1:])).astype(np.float32)
    results = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "net.nir"
        export_nir(graph, path)
        for name in installed(CLIENTS):
            try:
                run = CLIENTS[name](path, np.ascontiguousarray(frames))
            except QkfError as error:
                results.append(CheckResult.of(name, error))
                continue
            compared = different = 0
            for node in names:
                want = placed_array(expected.values[node], places[node].view, places[node].shape, lead=2)
                different += int((run.values[places[node].sources[0]] != want).sum())
                compared += want.size
            logits = run.output.mean(axis=0) if expected.raw_output.shape[0] == 1 else run.output
            results.append(CheckResult(name, compared, different, float(np.abs(logits - expected.logits).max())))
    return results


def check_parts(directory: Path, images: np.ndarray, clients: Mapping[str, Client] | None = None) -> list[CheckResult]:
    """A partitioned export, chained in every installed client and in this package's own reading of stock NIR.

    Args:
        directory: what :func:`qkf_deploy.converters.nir.partition.export_parts` wrote.
        images: as :func:`qkf_deploy.api.simulate` takes them.
        clients: the ones to run; by default all that are installed, and :func:`own`.
    """
    planned, files = load_parts(directory)
    x, _ = encode(planned.graph, images)
    expected = reference.run(planned.graph, x, Record.of(planned.graph, "all"))
    known: dict[str, Client] = {**CLIENTS, **CHAINS}
    results = []
    for name, client in (clients or {name: known[name] for name in installed(known)} | {OWN: own}).items():
        try:
            values = run_parts(planned, files, x, client)
        except QkfError as error:
            results.append(CheckResult.of(name, error))
            continue
        compared, different = _compare_events(planned.graph, values, expected.values)
        error = float(np.abs(values[planned.graph.output.name] - expected.raw_output).max())
        results.append(CheckResult(name, compared, different, error))
    return results


def _compare_events(
    graph: Graph, values: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> tuple[int, int]:
    names = [n for n in values if n in expected and (graph.arithmetic == "integer" or graph[n].type.is_events)]
    return sum(values[n].size for n in names), sum(int((values[n] != expected[n]).sum()) for n in names)


def check_onnx(graph: Graph, images: np.ndarray) -> list[CheckResult]:
    """Every value of both ONNX forms under ONNX Runtime; float graphs compare spikes in float32."""
    from qkf_deploy.simulators import onnx as onnx_engine

    x, _ = encode(graph, images)
    record = Record.of(graph, "all")
    expected = reference.run(graph, x, record)
    results = []
    for form in ("step", "sequence"):
        name = f"onnxruntime ({form})"
        try:
            run = onnx_engine.run(graph, x, record, form=form)
        except QkfError as error:
            results.append(CheckResult.of(name, error))
            continue
        compared, different = _compare_events(graph, run.values, expected.values)
        results.append(CheckResult(name, compared, different, float(np.abs(run.logits - expected.logits).max())))
    return results


def check_partitioned(graph: Graph, images: np.ndarray, *, chains: bool = False) -> list[CheckResult]:
    """:func:`check_parts` on a temporary export."""
    with tempfile.TemporaryDirectory() as directory:
        export_parts(graph, Path(directory) / "parts", chains=chains)
        return check_parts(Path(directory) / "parts", images)


def check_chains(graph: Graph, images: np.ndarray) -> list[CheckResult]:
    """:func:`check_partitioned` of parts that are chains, which norse and sinabs run too."""
    return check_partitioned(graph, images, chains=True)


def require_same(results: Sequence[CheckResult]) -> None:
    """Raises CheckFailed if a client that ran the export computed something else."""
    if any(not r.same and not r.refused for r in results):
        raise CheckFailed("a client computes something else than the network", hint="see the table above")
