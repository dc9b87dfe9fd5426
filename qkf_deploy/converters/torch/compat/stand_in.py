"""Modules made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """A module with the given names; others come from a newer module, if there is one.

    Args:
        name: full module name.
        names: what it holds.
        newer: module that answers for names it does not hold.
    """

    def __init__(self, name: str, names: Mapping[str, Any], newer: ModuleType | None = None) -> None:
        super().__init__(name)
        self.__path__ = []  # a package, so that submodules can be imported
        self.__dict__.update(names)
        self._newer = newer

    def __getattr__(self, name: str) -> Any:
        newer = self.__dict__.get("_newer")
        if newer is not None and hasattr(newer, name):
            return getattr(newer, name)
        known = ", ".join(sorted(n for n in self.__dict__ if not n.startswith("_")))
        raise AttributeError(f"the stand-in for {self.__name__} has no {name!r}; it has: {known}")
