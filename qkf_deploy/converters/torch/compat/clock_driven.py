"""`spikingjelly.clock_driven` (SpikingJelly up to 0.0.0.0.12) in terms of `spikingjelly.activation_based`.

The multi-step classes became ``step_mode='m'``; ``backend`` chose a CUDA kernel and does not change what is computed.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from torch import Tensor, nn

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


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate

    classes = {
        f"{prefix}{name}": _neuron_class(f"{prefix}{name}", getattr(neuron, name), mode)
        for prefix, mode in (("", "s"), ("MultiStep", "m"))
        for name in ("IFNode", "LIFNode", "ParametricLIFNode")
    }
    package = "spikingjelly.clock_driven"
    containers = {"MultiStepContainer": MultiStepContainer, "MultiStepDropout": MultiStepDropout}
    parts: dict[str, ModuleType] = {
        "neuron": StandIn(f"{package}.neuron", classes, neuron),
        "layer": StandIn(f"{package}.layer", containers, layer),
        "functional": StandIn(f"{package}.functional", {}, functional),
        "surrogate": StandIn(f"{package}.surrogate", {}, surrogate),
        "encoding": StandIn(f"{package}.encoding", {}, encoding),
    }
    return {package: StandIn(package, parts), **{f"{package}.{name}": part for name, part in parts.items()}}
