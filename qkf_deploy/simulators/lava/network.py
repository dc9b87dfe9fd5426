# pyright: reportMissingImports=false
"""Integer graph to connected Lava processes, and running them. CPython 3.10 with lava-nc only."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from qkf_deploy.errors import EngineError
from qkf_deploy.ir import Graph, Node, ValueType
from qkf_deploy.simulators.lava.job import Job
from qkf_deploy.simulators.lava.partition import PROCESS_NAMES, blocks, source_of
from qkf_deploy.simulators.lava.processes import block, endpoints, operators
from qkf_deploy.simulators.lava.stepping import Probe

#: The model of each process, named here so that Lava need not search for it in every process again.
MODELS: dict[type, type] = {
    operators.Synapse: operators.PySynapse,
    operators.IntegerNeuron: operators.PyIntegerNeuron,
    operators.Pool: operators.PyPool,
    operators.Shift: operators.PyShift,
    operators.Sum: operators.PySum,
    operators.Readout: operators.PyReadout,
    operators.Add: operators.PyAdd,
    operators.Concat: operators.PyConcat,
    operators.Mask: operators.PyMask,
    operators.MatMul: operators.PyMatMul,
    endpoints.Source: endpoints.PySource,
    endpoints.Sink: endpoints.PySink,
    block.Block: block.PyBlock,
}
#: Messages a channel holds. One is in flight per time step; Lava's default of 64 multiplies shared memory.
CHANNEL_SIZE = 2
#: Where Linux keeps shared memory.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its size is read
_BYTES = 8


@dataclass(frozen=True)
class Network:
    """Connected processes.

    Attributes:
        processes: all of them.
        sink: the process that is run (Lava runs everything connected to it).
    """

    processes: tuple[AbstractProcess, ...]
    sink: AbstractProcess


def build(job: Job) -> Network:
    """The processes of a job, connected. Every in-port gets exactly one source; the graph has no cycles.

    Raises:
        EngineError: there is not enough shared memory for the channels.
    """
    graph = job.graph
    source = endpoints.Source(job.inputs, time_steps=graph.time_steps, name=graph.input.name)
    senders: dict[str, Any] = {graph.input.name: source.y}
    processes: list[AbstractProcess] = [source]
    make = _block_processes if job.granularity == "block" else _operator_processes
    processes += make(job, senders)
    output = graph.output
    sink = endpoints.Sink(
        output.op, source_types(graph, output), output.params, views=[o.view for o in output.inputs],
        time_steps=graph.time_steps, probe=_probe(job, output), failures=job.folder, name=output.name,
        progress=job.progress,
    )  # fmt: skip
    senders[output.inputs[0].node].connect(sink.x)
    network = Network((*processes, sink), sink)
    _check_shared_memory(network)
    return network


def _check_shared_memory(network: Network) -> None:
    """A process that writes beyond it would be killed (SIGBUS) in the middle of the run."""
    if not SHARED_MEMORY.is_dir():
        return
    elements = sum(port.size for process in network.processes for port in process.in_ports)
    needed, free = elements * CHANNEL_SIZE * _BYTES, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise EngineError(
            f"the channels need {needed / 1e6:.0f} MB of shared memory, {SHARED_MEMORY} has {free / 1e6:.0f} MB",
            where="lava",
            hint="use granularity 'block', or give the container more (docker run --shm-size)",
        )


def source_types(graph: Graph, node: Node) -> list[ValueType]:
    """Types of the operands as their sources send them, views not applied."""
    return [graph[o.node].type for o in node.inputs]


def _operator_processes(job: Job, senders: dict[str, Any]) -> list[AbstractProcess]:
    graph = job.graph
    out = []
    for node in graph:
        if node.op.kind in ("input", "output"):
            continue
        process = getattr(operators, PROCESS_NAMES[node.op.kind])(
            node.op, source_types(graph, node), node.params, views=[o.view for o in node.inputs],
            time_steps=graph.time_steps, probe=_probe(job, node), failures=job.folder, name=node.name,
        )  # fmt: skip
        for port, operand in zip(node.op.ports, node.inputs, strict=True):
            senders[operand.node].connect(getattr(process, port))
        senders[node.name] = process.y
        out.append(process)
    return out


def _block_processes(job: Job, senders: dict[str, Any]) -> list[AbstractProcess]:
    out = []
    for nodes in blocks(job.graph):
        probes = {node.name: _probe(job, node) for node in nodes}
        process = block.Block(job.graph, nodes, probes=probes, failures=job.folder, name=f"to {nodes[-1].name}")
        senders[source_of(nodes)].connect(process.x)
        senders[nodes[-1].name] = process.y
        out.append(process)
    return out


def _probe(job: Job, node: Node) -> Probe:
    value = node.name in job.record.values or node.op.kind == "output"
    membrane = node.name in job.record.membranes
    return Probe(job.graph, node, value=value, membrane=membrane, images=job.images, path=job.results(node))


def configuration(network: Network) -> Loihi2SimCfg:
    """Run configuration: bit-exact CPU models."""
    models = {process: MODELS[type(process)] for process in network.processes}
    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)


def execute(network: Network, steps: int, before_stop: Callable[[], None]) -> dict[str, float]:
    """Run a network and stop it.

    Args:
        network: from :func:`build`.
        steps: Lava time steps, images × T.
        before_stop: called when the last step is done.

    Returns:
        Seconds by phase: ``compile``, ``start``, ``run``, ``stop``.
    """
    clock = [time.perf_counter()]
    config = configuration(network)
    executable = network.sink.compile(config, {"pypy_channel_size": CHANNEL_SIZE})
    clock.append(time.perf_counter())
    network.sink.create_runtime(config, executable)
    clock.append(time.perf_counter())
    network.sink.run(condition=RunSteps(num_steps=steps), run_cfg=config)
    clock.append(time.perf_counter())
    before_stop()
    network.sink.stop()
    clock.append(time.perf_counter())
    phases = ("compile", "start", "run", "stop")
    return {name: after - before for name, before, after in zip(phases, clock, clock[1:], strict=False)}
