"""The one name of torchvision that SpikingJelly's residual networks and VGG import: torch has the same function."""

from __future__ import annotations

from types import ModuleType

import torch

from qkf_deploy.converters.torch.compat.stand_in import StandIn


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    held = {"load_state_dict_from_url": torch.hub.load_state_dict_from_url}
    utils = StandIn("torchvision.models.utils", held)
    internal = StandIn("torchvision._internally_replaced_utils", held)
    models = StandIn("torchvision.models", {"utils": utils})
    package = StandIn("torchvision", {"models": models, "_internally_replaced_utils": internal})
    return {m.__name__: m for m in (package, models, utils, internal)}
