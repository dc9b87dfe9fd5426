"""Running somebody's model without a trace: on a copy, with everything global put back afterwards."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from qkf_deploy.errors import InputError


def working_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode: running it changes no flag, tensor or attribute of the model.

    What Python cannot copy (a lock, an open file, a module) is shared; tensors and modules never are.

    Raises:
        InputError: weights that were never given values (meta tensors, lazy modules that have not run yet).
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise InputError("this parameter has no values yet", where=name, hint="load weights, or run the model once")
    memo: dict[int, Any] = {}
    for module in model.modules():
        _detach_computed(vars(module), memo)
    try:
        copied = copy.deepcopy(model, dict(memo))
    except Exception:  # noqa: BLE001 - whatever an object raises that cannot be copied
        for module in model.modules():
            _share_uncopyable(module, memo)
        copied = copy.deepcopy(model, memo)
    return copied.cpu().eval()


def _detach_computed(value: Any, memo: dict[int, Any]) -> None:
    """Note copies of all computed tensors, such as membranes after a training step: Python copies only leaves."""
    if isinstance(value, torch.Tensor) and not value.is_leaf:
        memo[id(value)] = value.detach().clone()
    elif isinstance(value, dict):
        for item in value.values():
            _detach_computed(item, memo)
    elif isinstance(value, list | tuple):
        for item in value:
            _detach_computed(item, memo)


def _share_uncopyable(module: nn.Module, memo: dict[int, Any]) -> None:
    for name, value in vars(module).items():
        if name not in ("_modules", "_parameters", "_buffers"):
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:  # noqa: BLE001 - as above
                memo[id(value)] = value


class Kept:
    """The attributes and buffers of a copy, to be put back: membranes kept there live on from image to image.

    Args:
        model: any module. Parameters, and tensors changed in place, are not kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self._kept = [
            (module, {k: v for k, v in vars(module).items() if k not in _PARTS}, dict(module._buffers))
            for module in model.modules()
        ]

    def put_back(self) -> None:
        """Every attribute and buffer is again what it was."""
        for module, attributes, buffers in self._kept:
            for name in [k for k in vars(module) if k not in attributes and k not in _PARTS]:
                del module.__dict__[name]
            module.__dict__.update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


#: What of a module is not its own attributes.
_PARTS = frozenset({"_modules", "_parameters", "_buffers"})


@contextlib.contextmanager
def listed(copied: nn.Module) -> Iterator[None]:
    """A copy's modules are all that a library knows of while the copy runs.

    snnTorch lists every neuron ever made in its class and resets them all (``utils.reset``), those of other models and
    of the original too, and not those of a copy.
    """
    modules = list(copied.modules())
    classes = {c for m in modules for c in type(m).__mro__ if isinstance(vars(c).get(_LIST), list)}
    before = {c: vars(c)[_LIST] for c in classes}
    for c in classes:
        setattr(c, _LIST, [m for m in modules if isinstance(m, c)])
    try:
        yield
    finally:
        for c, list_ in before.items():
            setattr(c, _LIST, list_)


_LIST = "instances"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Random generators, default type, gradient mode, thread count and import path are afterwards what they were."""
    restore = [put(get()) for get, put in _GLOBALS]
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        for put_back in restore:
            put_back()


def _later(put: Callable[[Any], Any]) -> Callable[[Any], Callable[[], Any]]:
    return lambda value: lambda: put(value)


def _set_path(places: list[str]) -> None:
    sys.path[:] = places


_GLOBALS: tuple[tuple[Callable[[], Any], Callable[[Any], Callable[[], Any]]], ...] = (
    (torch.get_rng_state, _later(torch.set_rng_state)),
    (np.random.get_state, _later(np.random.set_state)),
    (random.getstate, _later(random.setstate)),
    (torch.get_default_dtype, _later(torch.set_default_dtype)),
    (torch.is_grad_enabled, _later(torch.set_grad_enabled)),
    (torch.get_num_threads, _later(torch.set_num_threads)),
    (sys.path.copy, _later(_set_path)),
)
