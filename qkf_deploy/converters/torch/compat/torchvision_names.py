"""The one name of torchvision that SpikingJelly's residual networks and VGG use: torch has the same function.

What else is imported from it (transforms, deformable convolutions) surrounds a model: :mod:`.unused`.
"""

from __future__ import annotations

from types import ModuleType

import torch

from qkf_deploy.converters.torch.compat.stand_in import StandIn


def modules() -> dict[str, ModuleType]:
    """The modules that hold it, by name."""
    held = {"load_state_dict_from_url": torch.hub.load_state_dict_from_url}
    names = ("torchvision.models.utils", "torchvision._internally_replaced_utils")
    return {name: StandIn(name, held) for name in names}
