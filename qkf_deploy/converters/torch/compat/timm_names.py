"""The few names of timm 0.6 that published spiking transformer files use.

Layers must be among them; other names of timm (whole networks, data, training) can be imported: :mod:`.unused`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from qkf_deploy.converters.torch.compat import unused
from qkf_deploy.converters.torch.compat.stand_in import StandIn


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops whole samples in training, the identity in evaluation mode.

    Args:
        drop_prob: probability of dropping a sample.
        scale_by_keep: divide what is kept by its probability.
    """

    def __init__(self, drop_prob: float | None = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob or 0.0
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` to the same shape."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        mask = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * mask.to(x.dtype) / (keep if self.scale_by_keep else 1.0)


class ScaledStdConv2d(nn.Conv2d):
    """Convolution with standardized weights (arXiv 2101.08692, Eq. 3 and 4): mean 0 and variance γ² per output.

    Args:
        *args, **kwargs: of ``Conv2d``, with a bias; ``padding`` defaults to half the kernel.
        gamma, gain_init, eps: the weight is γ gain (w - mean) / sqrt(max(n var, eps)), n inputs.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = None,
        dilation: Any = 1, groups: int = 1, bias: bool = True, gamma: float = 1.0, eps: float = 1e-6,
        gain_init: float = 1.0,
    ) -> None:  # fmt: skip
        if padding is None:
            padding = tuple(
                ((s - 1) + d * (k - 1)) // 2
                for k, s, d in zip(to_2tuple(kernel_size), to_2tuple(stride), to_2tuple(dilation), strict=True)
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.gain = nn.Parameter(torch.full((out_channels, 1, 1, 1), gain_init))
        self.scale, self.eps = gamma * self.weight[0].numel() ** -0.5, eps

    def forward(self, x: Tensor) -> Tensor:
        """As ``Conv2d``."""
        weight = nn.functional.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, (self.gain * self.scale).view(-1), None, True,
            0.0, self.eps,
        ).reshape_as(self.weight)  # fmt: skip
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def to_2tuple(value: Any) -> tuple[Any, ...]:
    """A pair out of one value; something iterable as a tuple."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value, value)


_FACTORIES: dict[str, Callable[..., Any]] = {}


def register_model(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a factory known to :func:`create_model`."""
    _FACTORIES[function.__name__] = function
    return function


def create_model(name: str, *, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Call a registered factory, without the arguments that are ``None``."""
    if name not in _FACTORIES:
        raise ValueError(f"no registered model {name!r}; there are: {', '.join(sorted(_FACTORIES))}")
    return _FACTORIES[name](pretrained=pretrained, **{k: v for k, v in kwargs.items() if v is not None})


def _cfg(url: str = "", **kwargs: Any) -> dict[str, Any]:
    """A model's default settings, which tracing does not use."""
    return {"url": url, **kwargs}


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    layers = {c.__name__: c for c in (DropPath, ScaledStdConv2d)}
    layers |= {"to_2tuple": to_2tuple, "trunc_normal_": nn.init.trunc_normal_}
    constants = {
        "IMAGENET_DEFAULT_MEAN": (0.485, 0.456, 0.406),
        "IMAGENET_DEFAULT_STD": (0.229, 0.224, 0.225),
    }
    names: dict[str, dict[str, Any]] = {
        "timm.models.layers": layers,
        "timm.layers": layers,
        "timm.models.registry": {"register_model": register_model},
        "timm.models.vision_transformer": {"_cfg": _cfg},
        "timm.data": constants,
        "timm.data.constants": constants,
    }
    made: dict[str, ModuleType] = {name: _module(name, held) for name, held in names.items()}
    models = {"register_model": register_model, "create_model": create_model} | {
        n.split(".")[2]: m for n, m in made.items() if n.startswith("timm.models.")
    }
    made["timm.models"] = _module("timm.models", models)
    made["timm"] = _module("timm", {name: made[f"timm.{name}"] for name in ("models", "layers", "data")})
    return made


def _module(name: str, held: dict[str, Any]) -> StandIn:
    return StandIn(name, held, None if name.endswith(".layers") else unused.Package(name))
