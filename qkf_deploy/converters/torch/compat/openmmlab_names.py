"""The names of MMEngine, MMSegmentation and MMDetection that backbones of published spiking networks use.

A backbone is a module that a registry knows; other names of these packages (logging, runners, heads) can be imported:
:mod:`.unused`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from qkf_deploy.converters.torch.compat import unused
from qkf_deploy.converters.torch.compat.stand_in import StandIn

_T = TypeVar("_T")


class BaseModule(nn.Module):
    """A module that keeps how its weights are to be initialized; they come from a checkpoint."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg


class Registry:
    """A registry that hands back what it is given, and looks nothing up."""

    def register_module(self, *_: object, **__: object) -> Callable[[_T], _T]:
        """A decorator that changes nothing."""
        return lambda registered: registered


class AvoidCUDAOOM:
    """Tries again where a GPU's memory is full, which changes nothing of what is computed."""

    @staticmethod
    def retry_if_cuda_oom(function: _T) -> _T:
        """A decorator that changes nothing."""
        return function


def modules() -> dict[str, ModuleType]:
    """The modules that hold them, by name."""
    held: dict[str, dict[str, Any]] = {
        "mmengine.model": {"BaseModule": BaseModule},
        "mmseg.registry": {"MODELS": Registry()},
        "mmdet.registry": {"MODELS": Registry()},
        "mmdet.utils": {"AvoidCUDAOOM": AvoidCUDAOOM},
    }
    return {name: StandIn(name, names, unused.Package(name)) for name, names in held.items()}
