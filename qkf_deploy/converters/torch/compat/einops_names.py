"""einops, which the official ImageNet file imports and does not use."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NoReturn

from qkf_deploy.converters.torch.compat.stand_in import StandIn


class Rearrange:
    """Can be imported, not used."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _not_installed()


def rearrange(*args: Any, **kwargs: Any) -> NoReturn:
    """Can be imported, not used."""
    _not_installed()


def _not_installed() -> NoReturn:
    raise ImportError("einops is not installed: pip install einops")


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    torch_layers = StandIn("einops.layers.torch", {"Rearrange": Rearrange})
    layers = StandIn("einops.layers", {"torch": torch_layers})
    return {
        m.__name__: m for m in (StandIn("einops", {"rearrange": rearrange, "layers": layers}), layers, torch_layers)
    }
