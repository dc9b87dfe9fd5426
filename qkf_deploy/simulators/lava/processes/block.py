# pyright: reportMissingImports=false
"""Many operators in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess

from qkf_deploy.ir import Graph, Node
from qkf_deploy.simulators.lava.failures import report_failure
from qkf_deploy.simulators.lava.partition import source_of
from qkf_deploy.simulators.lava.processes.base import on_cpu, port_shape
from qkf_deploy.simulators.lava.stepping import Probe, node_stepper


class Block(AbstractProcess):
    """A run of nodes that reads one value and hands one value on, e.g. one residual half.

    Ports: ``x`` (the value read), ``y`` (the value of the last node), int64 of their per-step shapes.

    Args:
        graph: the integer graph.
        nodes: a run as made by :func:`qkf_deploy.simulators.lava.partition.blocks`.
        probes: by node name; empty outside a simulation.
        failures: folder for reports of exceptions; ``None`` outside a simulation.
        name: of the process.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: list[Node],
        *,
        probes: Mapping[str, Probe] | None = None,
        failures: Path | None = None,
        name: str = "Block",
    ) -> None:
        super().__init__(graph=graph, nodes=nodes, probes=dict(probes or {}), failures=failures, name=name)
        self.x = InPort(shape=port_shape(graph[source_of(nodes)].type))
        self.y = OutPort(shape=port_shape(nodes[-1].type))


@on_cpu(Block)
class PyBlock(PyLoihiProcessModel):
    """:class:`Block` on CPU."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        graph: Graph = proc_params["graph"]
        self.nodes: list[Node] = proc_params["nodes"]
        self.probes: dict[str, Probe] = proc_params["probes"]
        self.failures: Path | None = proc_params["failures"]
        self.source = source_of(self.nodes)
        self.source_shape = graph[self.source].type.shape
        self.steppers = {node.name: node_stepper(graph, node) for node in self.nodes}
        self.current = ""

    def run_spk(self) -> None:
        """One time step of every node, in order."""
        received = self.x.recv()
        try:
            value = self._compute(received)
        except Exception as error:
            if self.failures is not None:
                report_failure(self.failures, error, self.current)
            self.y.send(np.zeros(self.y._shape, np.int64))
            raise
        self.y.send(np.ascontiguousarray(value).reshape(self.y._shape))

    def _compute(self, received: np.ndarray) -> np.ndarray:
        values = {self.source: received.reshape(self.source_shape)}
        for node in self.nodes:
            self.current = node.name
            step = self.steppers[node.name].step([values[o.node] for o in node.inputs])
            values[node.name] = step.value
            if node.name in self.probes:
                self.probes[node.name].observe(step)
        return values[self.nodes[-1].name]
