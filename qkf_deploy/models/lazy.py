"""Import of modules that need torch, with a clear error where it is not installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from qkf_deploy.errors import MissingComponent


def import_torch_module(name: str) -> ModuleType:
    """Import ``name``, which needs torch and SpikingJelly.

    Raises:
        MissingComponent: torch or SpikingJelly is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("torch", "spikingjelly"):
            raise
        raise MissingComponent(f"{error.name} is not installed", hint='pip install "qkf-deploy[torch]"') from error
