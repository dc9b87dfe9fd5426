"""Which modules are spiking neurons, and what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron


@dataclass(frozen=True)
class NeuronModule:
    """What the tracer needs to know of a neuron module.

    Attributes:
        op: its meaning.
        multi_step: True if the first axis of its input is time, False if it is called once per time step.
    """

    op: Neuron
    multi_step: bool


Recognizer = Callable[[Any], NeuronModule]
_REGISTERED: dict[str, Recognizer] = {}


def register_neuron(class_path: str, recognizer: Recognizer) -> None:
    """Teach the tracer a neuron class.

    Args:
        class_path: ``module.ClassName`` of the class (its subclasses are not covered).
        recognizer: from an instance to its :class:`NeuronModule`; may raise UnsupportedError.

    Example:
        >>> def mine(module):
        ...     return NeuronModule(Neuron(tau=module.tau, v_threshold=1.0, v_reset=0.0), multi_step=True)
        >>> register_neuron("mypackage.neurons.MyLIF", mine)
    """
    _REGISTERED[class_path] = recognizer


def recognize(module: Any) -> NeuronModule | None:
    """The neuron a module is, ``None`` if it is none.

    Raises:
        UnsupportedError: a neuron whose dynamics have no meaning here.
    """
    for cls in type(module).__mro__:
        path = f"{cls.__module__}.{cls.__qualname__}"
        if path in _REGISTERED and cls is type(module):
            return _REGISTERED[path](module)
    if not _is_spikingjelly_neuron(module):
        return None
    name = type(module).__name__
    # Old code's MultiStep* classes are always multi-step and say nothing about it.
    multi_step = getattr(module, "step_mode", "m") == "m"
    if name not in _SPIKINGJELLY:
        raise UnsupportedError(
            f"neuron {name} has dynamics without an exact form here",
            hint="IF, LIF and ParametricLIF neurons are understood",
        )
    return NeuronModule(_SPIKINGJELLY[name](module), multi_step)


def _is_spikingjelly_neuron(module: Any) -> bool:
    for cls in type(module).__mro__:
        if cls.__name__ in ("BaseNode", "MemoryModule") and cls.__module__.startswith("spikingjelly"):
            return hasattr(module, "v_threshold")
    return False


def _lif(module: Any) -> Neuron:
    return Neuron(float(module.tau), *_thresholds(module), bool(module.decay_input))


def _if(module: Any) -> Neuron:
    return Neuron(None, *_thresholds(module), decay_input=False)


def _plif(module: Any) -> Neuron:
    """Parametric LIF (Fang et al. 2021): 1/τ = sigmoid(w)."""
    weight = float(module.w.detach().double())
    return Neuron(1.0 + math.exp(-weight), *_thresholds(module), bool(module.decay_input))


def _thresholds(module: Any) -> tuple[float, float | None]:
    reset = module.v_reset
    return float(module.v_threshold), None if reset is None else float(reset)


_SPIKINGJELLY: dict[str, Callable[[Any], Neuron]] = {
    "IFNode": _if,
    "LIFNode": _lif,
    "ParametricLIFNode": _plif,
    "MultiStepIFNode": _if,
    "MultiStepLIFNode": _lif,
    "MultiStepParametricLIFNode": _plif,
}
