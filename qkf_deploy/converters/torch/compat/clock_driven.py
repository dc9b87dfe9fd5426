"""`spikingjelly.clock_driven` (SpikingJelly up to 0.0.0.0.12) in terms of `spikingjelly.activation_based`.

The multi-step classes became ``step_mode='m'``; ``backend`` chose a CUDA kernel and does not change what is computed.
Neurons of a file's own derive from :class:`BaseNode` as it was.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from qkf_deploy.converters.torch.compat import unused
from qkf_deploy.converters.torch.compat.stand_in import StandIn

#: Arguments that chose an implementation, not a behaviour; in 0.0.0.0.12 they come last, behind ``detach_reset``.
_IMPLEMENTATION = ("backend", "cupy_fp32_inference", "lava_s_cale", "step_mode")


def _neuron_class(name: str, base: type, step_mode: str) -> type:
    behaviour = list(inspect.signature(base).parameters).index("detach_reset") + 1

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - a method of the class made below
        kwargs = {k: v for k, v in kwargs.items() if k not in _IMPLEMENTATION}
        base.__init__(self, *args[:behaviour], step_mode=step_mode, **kwargs)

    return type(name, (base,), {"__init__": __init__, "__doc__": f"clock_driven.{name}", "__module__": __name__})


class MultiStepContainer(nn.Sequential):
    """Calls its modules once per time step: ``(T, B, ...)`` to ``(T, B, ...)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Every step through all modules, in order."""
        import torch

        return torch.stack([super(MultiStepContainer, self).forward(step) for step in x])


class MultiStepDropout(nn.Dropout):
    """Dropout; the identity in evaluation mode."""


class Dropout(nn.Dropout):
    """Dropout, of spikes too; the identity in evaluation mode."""

    def __init__(self, p: float = 0.5, *_: object, **__: object) -> None:
        super().__init__(p)


class BaseNode(nn.Module, metaclass=ABCMeta):
    """What a file's own neurons derive from: they charge ``v`` in ``neuronal_charge`` (up to 0.0.0.0.3 in ``forward``,
    which ends with ``spiking()``), then all fire where ``v >= v_threshold`` and reset."""

    def __init__(
        self, v_threshold: float = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False, *_: object, **__: object,
    ) -> None:  # fmt: skip
        from spikingjelly.activation_based import surrogate

        super().__init__()
        self.v_threshold, self.v_reset, self.detach_reset = v_threshold, v_reset, detach_reset
        self.surrogate_function = surrogate.Sigmoid() if surrogate_function is None else surrogate_function
        self.v: Any = 0.0
        self.reset()

    def neuronal_charge(self, x: Tensor) -> None:
        """Set ``v``; each class has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not charge its membrane")

    def neuronal_fire(self) -> Tensor:
        """Spikes."""
        return self.surrogate_function(self.v - self.v_threshold)

    def neuronal_reset(self, spike: Tensor) -> None:
        """Subtract the threshold, or set the membrane to the reset voltage."""
        spike = spike.detach() if self.detach_reset else spike
        if self.v_reset is None:
            self.v = self.v - spike * self.v_threshold
        else:
            self.v = (1.0 - spike) * self.v + spike * self.v_reset

    def spiking(self) -> Tensor:
        """Fire and reset."""
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        self.neuronal_charge(x)
        return self.spiking()

    def reset(self) -> None:
        """Before another input."""
        self.v = 0.0 if self.v_reset is None else self.v_reset


def _learnable(name: str, base: type) -> type:
    """A surrogate function of 0.0.0.0.3, whose slope could be learned: no matter in a forward pass."""

    def __init__(self: Any, *args: Any, learnable: bool = False, **kwargs: Any) -> None:  # noqa: N807
        base.__init__(self, *args, **kwargs)

    return type(name, (base,), {"__init__": __init__, "__module__": base.__module__})


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    from spikingjelly.activation_based import base, encoding, functional, layer, neuron, surrogate

    BaseNode.register(neuron.BaseNode)
    classes = {
        f"{prefix}{name}": _neuron_class(f"{prefix}{name}", getattr(neuron, name), mode)
        for prefix, mode in (("", "s"), ("MultiStep", "m"))
        for name in ("IFNode", "LIFNode", "ParametricLIFNode")
    }
    package = "spikingjelly.clock_driven"
    layers = {c.__name__: c for c in (MultiStepContainer, MultiStepDropout, Dropout)}
    functions = {
        n: _learnable(n, c)
        for n, c in vars(surrogate).items()
        if inspect.isclass(c) and issubclass(c, surrogate.SurrogateFunctionBase)
    }
    parts: dict[str, ModuleType] = {
        "accelerating": StandIn(f"{package}.accelerating", {}),
        "base": StandIn(f"{package}.base", {}, base),
        "neuron": StandIn(f"{package}.neuron", {**classes, "BaseNode": BaseNode}, neuron),
        "layer": StandIn(f"{package}.layer", layers, layer),
        "functional": StandIn(f"{package}.functional", {}, functional),
        "surrogate": StandIn(f"{package}.surrogate", functions, surrogate),
        "encoding": StandIn(f"{package}.encoding", {}, encoding),
        "lava_exchange": unused.Package(f"{package}.lava_exchange"),
    }
    return {package: StandIn(package, parts), **{f"{package}.{name}": part for name, part in parts.items()}}
