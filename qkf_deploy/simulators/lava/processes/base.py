# pyright: reportMissingImports=false
"""What all operator processes share: ports after the operator, receive - compute - send, reporting of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from qkf_deploy.ir import Operator, ValueType, View
from qkf_deploy.simulators.lava.failures import report_failure
from qkf_deploy.simulators.lava.stepping import Probe, Step, stepper

Model = TypeVar("Model", bound=type)


def on_cpu(process: type[AbstractProcess]) -> Callable[[Model], Model]:
    """Make a class the process model of ``process`` on CPU: Loihi's protocol, integers, bit-exact."""

    def declare(model: Model) -> Model:
        return implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(tag("fixed_pt")(model)))

    return declare


def port_shape(type_: ValueType) -> tuple[int, ...]:
    """Shape of the port that carries a value."""
    return type_.shape or (1,)


class OperatorProcess(AbstractProcess):
    """One operator of an integer graph.

    Ports: one ``InPort`` per operand, named as in ``op.ports`` (``x``; ``a``, ``b``; ``gate``, ``x``; ``left``,
    ``right``), of the shape of the value as its source sends it, and the ``OutPort`` ``y``. All carry int64.

    Args:
        op: operator with its attributes (:mod:`qkf_deploy.ops`).
        inputs: types of the values that arrive, in port order, views not applied.
        params: arrays of the operator; becoming Lava Vars of the same names.
        time_steps: T; state is cleared at the start of every T-th time step.
        views: how each operand is read (``None``: as it arrives).
        probe: counts and keeps values; ``None`` outside a simulation.
        failures: folder for reports of exceptions; ``None`` outside a simulation.
        name: of the process.

    Raises:
        GraphError: shapes, kinds and parameters do not fit.
    """

    def __init__(
        self,
        op: Operator,
        inputs: Sequence[ValueType],
        params: Mapping[str, np.ndarray] | None = None,
        *,
        time_steps: int,
        views: Sequence[View | None] | None = None,
        probe: Probe | None = None,
        failures: Path | None = None,
        name: str = "",
    ) -> None:
        params = dict(params or {})
        views = tuple(views or (None,) * len(inputs))
        super().__init__(
            op=op, params=params, views=views, time_steps=time_steps, probe=probe, failures=failures,
            sources=tuple(inputs), name=name or type(self).__name__,
        )  # fmt: skip
        seen = [t if v is None else replace(t, shape=v.shape) for t, v in zip(inputs, views, strict=True)]
        self.type = op.infer(seen, params)
        self.proc_params["type"] = self.type
        for port, source in zip(op.ports, inputs, strict=True):
            setattr(self, port, InPort(shape=port_shape(source)))
        self.y = OutPort(shape=port_shape(self.type))
        self.declare(params)

    def declare(self, params: Mapping[str, np.ndarray]) -> None:
        """Create the Vars of this kind of process."""


class OperatorModel(PyLoihiProcessModel):
    """Receives one message per in-port, computes one time step, sends one message; on CPU, bit-exact.

    An exception is reported in the folder ``failures``; zeros are sent so that no neighbour waits for a message that
    never comes.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.op: Operator = proc_params["op"]
        self.sources: tuple[ValueType, ...] = proc_params["sources"]
        self.probe: Probe | None = proc_params["probe"]
        self.failures: Path | None = proc_params["failures"]
        self.title: str = proc_params["name"]
        self.stepper = stepper(
            self.op, proc_params["params"], proc_params["type"], proc_params["views"], proc_params["time_steps"]
        )

    def parameters(self) -> dict[str, np.ndarray]:
        """Parameters that live in Vars."""
        return {}

    def compute(self, received: Sequence[np.ndarray]) -> np.ndarray:
        """One time step: what to send for what was received."""
        if self.time_step == 1:  # the builder assigns Vars after the constructor
            self.stepper.params = {**self.stepper.params, **self.parameters()}
        step = self.stepper.step([x.reshape(s.shape) for x, s in zip(received, self.sources, strict=True)])
        self.observe(step)
        return step.value

    def observe(self, step: Step) -> None:
        """Show a finished step to whoever watches."""
        if self.probe is not None:
            self.probe.observe(step)

    def run_spk(self) -> None:
        """One time step."""
        received = [getattr(self, port).recv() for port in self.op.ports]
        out = getattr(self, "y", None)
        try:
            value = self.compute(received)
        except Exception as error:
            if self.failures is not None:
                report_failure(self.failures, error, self.title)
            if out is not None:
                out.send(np.zeros(out._shape, np.int64))
            raise
        if out is not None:
            out.send(np.ascontiguousarray(value).reshape(out._shape))
