"""A model's code in float64, whatever type it names."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """What a model makes in float32 by name, such as ``(v > 1).float()``, is float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args, kwargs = widened(list(args)), {k: widened(v) for k, v in (kwargs or {}).items()}
        try:
            return func(*args, **kwargs)
        except RuntimeError:  # a float32 constant that no module holds, where types must agree
            wide = [widened(a, tensors=True) for a in args], {k: widened(v, tensors=True) for k, v in kwargs.items()}
            return func(*wide[0], **wide[1])


def widened(value: Any, *, tensors: bool = False) -> Any:
    """An argument with every float type in it float64, of tensors if they are meant, too."""
    if tensors and isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    if isinstance(value, list | tuple) and type(value) in (list, tuple):  # a shape stays what it is
        wider = [widened(v, tensors=tensors) for v in value]
        return tuple(wider) if isinstance(value, tuple) else wider
    return value
