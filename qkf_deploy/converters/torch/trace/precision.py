"""A model's code in float64, whatever type it names."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """What a model makes in float32 by name, such as ``(v > 1).float()``, is float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        return func(*widened(list(args)), **{k: widened(v) for k, v in (kwargs or {}).items()})


def widened(value: Any) -> Any:
    """An argument with every float type in it float64."""
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    if isinstance(value, list | tuple) and type(value) in (list, tuple):  # a shape stays what it is
        wider = [widened(v) for v in value]
        return tuple(wider) if isinstance(value, tuple) else wider
    return value
