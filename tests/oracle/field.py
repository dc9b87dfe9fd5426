"""What the field's own tools read: torchvision, and the data sets of SpikingJelly, which import it."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

_SETS = "spikingjelly.datasets"
_OPERATORS = "torchvision._meta_registrations"


@cache
def module(name: str) -> ModuleType:
    """A module of torchvision or of SpikingJelly's data sets; skips where it is not installed.

    Only their Python parts are needed, so they are imported without torchvision's compiled operators, which may be
    missing, and without SpikingJelly's readers of sound. ``sys.modules`` stays as it was.
    """
    pytest.importorskip("torch")
    before = set(sys.modules)
    try:
        sys.modules.setdefault(_OPERATORS, ModuleType(_OPERATORS))
        if name.startswith(_SETS) and _SETS not in sys.modules:
            package = ModuleType(_SETS)
            package.__path__ = [str(Path(p) / "datasets") for p in importlib.import_module("spikingjelly").__path__]
            sys.modules[_SETS] = package
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    finally:
        for loaded in set(sys.modules) - before:
            if loaded.split(".")[0] == "torchvision" or loaded.startswith(_SETS):
                del sys.modules[loaded]
