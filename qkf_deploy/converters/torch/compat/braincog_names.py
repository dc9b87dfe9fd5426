"""The neurons of BrainCog (arXiv 2207.08533) that spiking transformers on it use, and the module they stand in.

BrainCog imports data sets and plotting with every neuron. These compute what its forward passes compute: membranes
``mem``, from ``n_reset`` on zero, all steps of ``(T·B, ...)`` in one call where ``layer_by_layer`` is set, spikes where
``mem >= threshold``, reset to zero. They have no gradients.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qkf_deploy.converters.torch.compat import unused
from qkf_deploy.converters.torch.compat.stand_in import StandIn


def heaviside(x: Tensor) -> Tensor:
    """1 from 0 on."""
    return (x >= 0).to(x.dtype)


class _Step:
    """An autograd function whose forward pass is a step."""

    @staticmethod
    def apply(x: Tensor, *_: object) -> Tensor:
        return heaviside(x)


class SurrogateFunctionBase(nn.Module):
    """A step with a parameter of its gradient."""

    def __init__(self, alpha: float = 2.0, requires_grad: bool = True) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(alpha)), requires_grad=requires_grad)

    @staticmethod
    def act_fun(x: Tensor, alpha: Tensor) -> Tensor:
        """Overridden where it is no plain step."""
        return heaviside(x)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of ``mem - threshold``."""
        return self.act_fun(x, self.alpha)


class BaseNode(nn.Module):
    """A neuron; subclasses define ``integral`` and ``calc_spike``."""

    act_fun: Any

    def __init__(
        self, threshold: float = 0.5, v_reset: float = 0.0, dt: float = 1.0, step: int = 8,
        requires_thres_grad: bool = False, sigmoid_thres: bool = False, requires_fp: bool = False,
        layer_by_layer: bool = False, n_groups: int = 1, *_: object, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if n_groups != 1:
            raise NotImplementedError("steps among the channels (n_groups)")
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=requires_thres_grad)
        self.sigmoid_thres, self.v_reset, self.dt, self.step = sigmoid_thres, v_reset, dt, step
        self.layer_by_layer, self.groups, self.requires_fp = layer_by_layer, n_groups, requires_fp
        self.mem_detach = kwargs.get("mem_detach", False)
        self.mem: Any = 0.0
        self.spike: Any = 0.0

    def integral(self, inputs: Tensor) -> None:
        """Charge ``mem``."""

    def calc_spike(self) -> None:
        """Set ``spike`` and reset ``mem``."""

    def get_thres(self) -> Tensor:
        """The threshold."""
        return self.threshold.sigmoid() if self.sigmoid_thres else self.threshold

    def rearrange2node(self, inputs: Tensor) -> Tensor:
        """``(T·B, ...)`` to ``(T, B, ...)``."""
        return inputs.reshape(self.step, -1, *inputs.shape[1:]) if self.layer_by_layer else inputs

    def rearrange2op(self, inputs: Tensor) -> Tensor:
        """Back."""
        return inputs.flatten(0, 1) if self.layer_by_layer else inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """All steps, or one."""
        if not self.layer_by_layer:
            return self._one(inputs)
        steps = self.rearrange2node(inputs)
        return self.rearrange2op(torch.stack([self._one(steps[t]) for t in range(self.step)]))

    def _one(self, x: Tensor) -> Tensor:
        self.integral(x)
        self.calc_spike()
        return self.spike

    def n_reset(self) -> None:
        """Before another input."""
        self.mem, self.spike = self.v_reset, 0.0

    def reset_to_zero(self, threshold: Tensor) -> None:
        """Fire, and reset by a product."""
        self.spike = self.act_fun(self.mem - threshold)
        self.mem = self.mem * (1 - self.spike.detach())

    def _surrogate(self, function: Any) -> None:
        made = _SURROGATES[function] if isinstance(function, str) else function
        self.act_fun = made(alpha=2.0, requires_grad=False)


class IFNode(BaseNode):
    """mem + dt x."""

    def __init__(self, threshold: float = 0.5, act_fun: Any = "AtanGrad", *args: Any, **kwargs: Any) -> None:
        super().__init__(threshold, *args, **kwargs)
        self._surrogate(act_fun)

    def integral(self, inputs: Tensor) -> None:
        """Charge ``mem``."""
        self.mem = self.mem + inputs * self.dt

    def calc_spike(self) -> None:
        """Set ``spike`` and reset ``mem``."""
        self.reset_to_zero(self.get_thres())


class LIFNode(BaseNode):
    """mem + (x - mem) / τ."""

    def __init__(
        self, threshold: float = 0.5, tau: float = 2.0, act_fun: Any = "QGateGrad", *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(threshold, *args, **kwargs)
        self.tau = tau
        self._surrogate(act_fun)

    def integral(self, inputs: Tensor) -> None:
        """Charge ``mem``."""
        self.mem = self.mem + (inputs - self.mem) / self.tau

    def calc_spike(self) -> None:
        """Set ``spike`` and reset ``mem``."""
        self.reset_to_zero(self.threshold)


class PLIFNode(BaseNode):
    """mem + (x - mem) sigmoid(w) dt."""

    def __init__(
        self, threshold: float = 1.0, tau: float = 2.0, act_fun: Any = "AtanGrad", *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(threshold, *args, **kwargs)
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1.0)))
        self._surrogate(act_fun)

    def integral(self, inputs: Tensor) -> None:
        """Charge ``mem``."""
        self.mem = self.mem + ((inputs - self.mem) * self.w.sigmoid()) * self.dt

    def calc_spike(self) -> None:
        """Set ``spike`` and reset ``mem``."""
        self.reset_to_zero(self.get_thres())


class _Encoder(nn.Module):
    def __init__(self, step: int, layer_by_layer: bool) -> None:
        super().__init__()
        self.step, self.layer_by_layer = step, layer_by_layer

    def forward(self, x: Tensor, *_: object) -> Tensor:
        """Images at every step, or event frames ``(B, T, ...)``, steps in front or within the batch."""
        steps = x.transpose(0, 1) if x.ndim in (3, 5) else x.unsqueeze(0).repeat(self.step, *[1] * x.ndim)
        return steps.flatten(0, 1) if self.layer_by_layer else steps


class BaseModule(nn.Module):
    """A network: steps, and the encoder of its input."""

    def __init__(
        self, step: int, encode_type: str = "direct", layer_by_layer: bool = False, temporal_flatten: bool = False,
        *_: object, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if encode_type != "direct" or temporal_flatten:
            raise NotImplementedError(f"encoding {encode_type!r}, temporal_flatten {temporal_flatten}")
        self.step, self.layer_by_layer, self.temporal_flatten = step, layer_by_layer, temporal_flatten
        self.init_channel_mul, self.kwargs, self.warm_up = 1, kwargs, False
        self.encoder = _Encoder(step, layer_by_layer)

    def reset(self) -> None:
        """All membranes."""
        for module in self.modules():
            if isinstance(module, BaseNode):
                module.n_reset()


_SURROGATES = {
    name: type(name, (SurrogateFunctionBase,), {}) for name in ("AtanGrad", "GateGrad", "QGateGrad", "SigmoidGrad")
}


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    there = importlib.util.find_spec("einops") is not None
    others = importlib.import_module("einops") if there else unused.Package("einops")  # which says so where it is used
    around = {"torch": torch, "nn": nn, "F": functional, "np": np, "math": math}
    around |= {name: getattr(others, name) for name in ("rearrange", "repeat")}
    steps = {name: type(name, (_Step,), {}) for name in ("atan", "gate", "quadratic_gate", "sigmoid")}
    surrogates = {
        **around,
        **steps,
        **_SURROGATES,
        "heaviside": heaviside,
        "SurrogateFunctionBase": SurrogateFunctionBase,
    }
    nodes = surrogates | {c.__name__: c for c in (BaseNode, IFNode, LIFNode, PLIFNode)}
    names: dict[str, dict[str, Any]] = {
        "braincog": {},
        "braincog.base": {},
        "braincog.base.node": nodes,
        "braincog.base.node.node": nodes,
        "braincog.base.strategy": {},
        "braincog.base.strategy.surrogate": surrogates,
        "braincog.base.connection": {},
        "braincog.base.connection.layer": around,
        "braincog.model_zoo": {},
        "braincog.model_zoo.base_module": {**nodes, "BaseModule": BaseModule},
    }
    return {name: StandIn(name, held) for name, held in names.items()}
