"""Packages that model files import for what surrounds a model (summaries, counters, plots) and may never call."""

from __future__ import annotations

from types import ModuleType
from typing import Any

#: Where not installed, anything can be imported from these, and nothing used.
PACKAGES = (
    "einops", "fvcore", "matplotlib", "ptflops", "thop", "torchinfo", "torchsummary", "wandb",
)  # fmt: skip
_MODULES = {"einops": ("layers", "layers.torch"), "fvcore": ("nn",), "matplotlib": ("pyplot",)}


class Unused:
    """Can be imported, not used."""

    def __init__(self, package: str, name: str) -> None:
        self._package, self._name = package, name

    def __call__(self, *_: object, **__: object) -> object:
        """Calls that were written as decorators may find their package's absence harmless; ours cannot tell."""
        raise ImportError(f"{self._package} is not installed, and {self._name} is used: pip install {self._package}")

    def __getattr__(self, name: str) -> Unused:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unused(self._package, f"{self._name}.{name}")


class _Package(ModuleType):
    """A module that holds every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unused(self.__name__.partition(".")[0], name)


def modules(package: str) -> dict[str, ModuleType]:
    """A package and its modules by name."""
    made: dict[str, ModuleType] = {package: _Package(package)}
    for name in _MODULES.get(package, ()):
        path = f"{package}.{name}"
        made[path] = _Package(path)
        parent, _, last = path.rpartition(".")
        setattr(made[parent], last, made[path])
    return made
