"""Which modules are spiking neurons, and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qkf_deploy.converters.torch.trace.spikingjelly import spikingjelly_neuron
from qkf_deploy.converters.torch.trace.told import told_of
from qkf_deploy.ops import Neuron


@dataclass(frozen=True)
class NeuronModule:
    """What the tracer needs to know of a neuron module.

    Attributes:
        op: its meaning.
        multi_step: True if the first axis of its input is time, False if it is called once per time step.
        params: values that differ between channels or positions (``tau``, ``v_threshold``, ``v_reset``), which
            broadcast to the input of one step as in torch; the attribute of ``op`` is the largest. ``initial``: V
            before the first step, one number without axes or of the input's shape at batch size 1.
        notices: sentences the user should read.
    """

    op: Neuron
    multi_step: bool
    params: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    notices: tuple[str, ...] = ()

    @property
    def untimed(self) -> bool:
        """True if one call does not tell of a time step: all steps at once, or nothing kept from step to step."""
        return self.multi_step or self.op.decay == 0.0


#: From an object to what it computes; an operator alone means that the first axis is time.
Recognizer = Callable[[Any], NeuronModule | Neuron]
_REGISTERED: dict[str, Recognizer] = {}


def register_neuron(class_path: str, recognizer: Recognizer) -> None:
    """Teach the tracer a neuron class; where a model is traced, its objects are tried beside what is said of them.

    Args:
        class_path: ``module.ClassName`` of the class (its subclasses are not covered).
        recognizer: from an instance to its :class:`NeuronModule`, or to a :class:`qkf_deploy.ops.Neuron` where the
            first axis of its input is time; may raise UnsupportedError.

    Example:
        >>> def mine(module):
        ...     return Neuron(tau=module.tau, v_threshold=1.0, v_reset=0.0)
        >>> register_neuron("mypackage.neurons.MyLIF", mine)
    """
    _REGISTERED[class_path] = recognizer


def is_described(module: Any) -> bool:
    """True for an object of a class that somebody registered or told."""
    cls = type(module)
    return f"{cls.__module__}.{cls.__qualname__}" in _REGISTERED or told_of(cls) is not None


def recognize(module: Any) -> NeuronModule | None:
    """The neuron a module is, ``None`` if it is none.

    Raises:
        UnsupportedError: a neuron whose dynamics have no meaning here.
    """
    registered = _REGISTERED.get(f"{type(module).__module__}.{type(module).__qualname__}")
    if registered is not None:
        found = registered(module)
        return NeuronModule(found, multi_step=True) if isinstance(found, Neuron) else found
    told = told_of(type(module))
    if told is not None:
        return NeuronModule(*told.neuron(module))
    known = spikingjelly_neuron(module)
    return None if known is None else NeuronModule(known.op, known.multi_step, known.params, known.notices)
