# pyright: reportMissingImports=false
"""Where images enter and results leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from qkf_deploy.ir import ValueType
from qkf_deploy.simulators.lava.processes.base import OperatorModel, OperatorProcess, on_cpu, port_shape


class Source(AbstractProcess):
    """Sends images one after the other: the same one at every step, or one event frame per step.

    Port: ``y`` ``(C, H, W)``, int64.

    Args:
        data: ``(1, B, C, H, W)`` for images, ``(T, B, C, H, W)`` for event frames, integers.
        time_steps: T. After the last image the first one follows again.
        name: of the process.
    """

    def __init__(self, data: np.ndarray, *, time_steps: int, name: str = "Source") -> None:
        super().__init__(data=data, time_steps=time_steps, name=name)
        self.y = OutPort(shape=data.shape[2:])


class Sink(OperatorProcess):
    """The output node: takes the logits (integers, before the output scale).

    Port: ``x``. Var: ``value`` int64, what arrived in the last time step.

    Args:
        progress: file that grows by one byte per finished image, or ``None``.
        op, inputs, others: as in :class:`OperatorProcess`.
    """

    def __init__(self, op: Any, inputs: Sequence[ValueType], *args: Any, progress: Path | None = None, **others: Any):
        super().__init__(op, inputs, *args, **others)
        self.proc_params["progress"] = progress
        del self.y
        self.value = Var(shape=port_shape(self.type), init=0)


@on_cpu(Source)
class PySource(PyLoihiProcessModel):
    """:class:`Source` on CPU."""

    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.data: np.ndarray = proc_params["data"]
        self.time_steps: int = proc_params["time_steps"]

    def run_spk(self) -> None:
        """Send the frame of this time step."""
        image, time = divmod(self.time_step - 1, self.time_steps)
        frames, images = self.data.shape[:2]
        self.y.send(self.data[min(time, frames - 1), image % images].astype(np.int64))


@on_cpu(Sink)
class PySink(OperatorModel):
    """:class:`Sink` on CPU."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    value: np.ndarray = LavaPyType(np.ndarray, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.progress: Path | None = proc_params["progress"]

    def run_spk(self) -> None:
        """Take what arrived."""
        finished = self.stepper.last
        super().run_spk()
        if finished and self.progress is not None:
            with self.progress.open("ab") as file:
                file.write(b".")

    def compute(self, received: Sequence[np.ndarray]) -> np.ndarray:
        value = super().compute(received)
        self.value[:] = np.reshape(value, self.value.shape)
        return value
