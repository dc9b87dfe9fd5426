# pyright: reportMissingImports=false
"""One Lava process and one process model per operator of integer graphs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var

from qkf_deploy.simulators.lava.processes.base import OperatorModel, OperatorProcess, on_cpu
from qkf_deploy.simulators.lava.stepping import Step


class Synapse(OperatorProcess):
    """Convolution or linear layer: y = W x + b, in the time step in which x arrives (no delay).

    Ports: ``x``, ``y``. Vars: ``weight`` and ``bias`` (zeros where the operator has none), int64, shapes as in
    :class:`qkf_deploy.ops.Conv` and :class:`qkf_deploy.ops.Linear`; the stored weight width is ``op.weight_bits``.
    """

    def declare(self, params: Mapping[str, np.ndarray]) -> None:
        weight = params["weight"]
        bias = params.get("bias", np.zeros(weight.shape[0], np.int64))
        self.weight = Var(shape=weight.shape, init=weight.astype(np.int64))
        self.bias = Var(shape=bias.shape, init=bias.astype(np.int64))


class IntegerNeuron(OperatorProcess):
    """The canonical neuron, :class:`qkf_deploy.ops.IntegerNeuron`; M starts anew with every image.

    Ports: ``x`` (drive), ``y`` (number of spikes). Vars, int64: ``theta`` (broadcastable to the per-step shape), ``u``
    (charged membrane potential of the step) and ``m`` (state after firing and reset), both of the per-step shape.
    """

    def declare(self, params: Mapping[str, np.ndarray]) -> None:
        theta = np.atleast_1d(params["theta"])
        self.theta = Var(shape=theta.shape, init=theta.astype(np.int64))
        self.u = Var(shape=self.y.shape, init=0)
        self.m = Var(shape=self.y.shape, init=0)


class Pool(OperatorProcess):
    """Max pooling (padding never wins) or sum pooling (zero padding). Ports: ``x``, ``y``."""


class Shift(OperatorProcess):
    """Division by a power of two, rounded. Ports: ``x``, ``y``."""


class Sum(OperatorProcess):
    """Sum over axes: a head's channels, tokens, positions. Ports: ``x``, ``y``."""


class Readout(OperatorProcess):
    """Sum over the time steps of an image. Ports: ``x``, ``y``; zeros leave until the image's last time step."""


class Add(OperatorProcess):
    """a + b, both of the same shape. Ports: ``a``, ``b``, ``y``."""


class Concat(OperatorProcess):
    """b behind a along an axis. Ports: ``a``, ``b``, ``y``."""


class Mask(OperatorProcess):
    """x where the gate spikes, else 0 (the other way round with ``op.invert``). Ports: ``gate``, ``x``, ``y``."""


class MatMul(OperatorProcess):
    """left @ right of two activations. Ports: ``left``, ``right``, ``y``."""


class PySending(OperatorModel):
    """Hands its value on."""

    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


class PyUnary(PySending):
    """One operand, or one besides others, named ``x``."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)


class PyPair(PySending):
    """Two operands that are alike."""

    a: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    b: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)


@on_cpu(Synapse)
class PySynapse(PyUnary):
    """:class:`Synapse` on CPU."""

    weight: np.ndarray = LavaPyType(np.ndarray, np.int64)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int64)

    def parameters(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "bias": self.bias}


@on_cpu(IntegerNeuron)
class PyIntegerNeuron(PyUnary):
    """:class:`IntegerNeuron` on CPU."""

    theta: np.ndarray = LavaPyType(np.ndarray, np.int64)
    u: np.ndarray = LavaPyType(np.ndarray, np.int64)
    m: np.ndarray = LavaPyType(np.ndarray, np.int64)

    def parameters(self) -> dict[str, np.ndarray]:
        return {"theta": self.theta}

    def observe(self, step: Step) -> None:
        super().observe(step)
        if step.membrane is not None and step.state is not None:
            self.u[:] = step.membrane.reshape(self.u.shape)
            self.m[:] = step.state.reshape(self.m.shape)


@on_cpu(Pool)
class PyPool(PyUnary):
    """:class:`Pool` on CPU."""


@on_cpu(Shift)
class PyShift(PyUnary):
    """:class:`Shift` on CPU."""


@on_cpu(Sum)
class PySum(PyUnary):
    """:class:`Sum` on CPU."""


@on_cpu(Readout)
class PyReadout(PyUnary):
    """:class:`Readout` on CPU."""


@on_cpu(Add)
class PyAdd(PyPair):
    """:class:`Add` on CPU."""


@on_cpu(Concat)
class PyConcat(PyPair):
    """:class:`Concat` on CPU."""


@on_cpu(Mask)
class PyMask(PyUnary):
    """:class:`Mask` on CPU."""

    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)


@on_cpu(MatMul)
class PyMatMul(PySending):
    """:class:`MatMul` on CPU."""

    left: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    right: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
