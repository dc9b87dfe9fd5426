"""Packages that model files import for what surrounds a model (summaries, counters, plots) and may never call."""

from __future__ import annotations

import importlib.abc
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Where not installed, anything can be imported from these and their modules, and nothing used.
PACKAGES = (
    "IPython", "dv", "einops", "fvcore", "matplotlib", "mpl_toolkits", "ptflops", "pygame", "seaborn", "sklearn",
    "thop", "tonic", "torchinfo", "torchsummary", "tqdm", "ultralytics", "wandb",
)  # fmt: skip


#: The same, where the package itself is a stand-in: by its name.
BESIDE = {
    "timm": ("timm.data", "timm.loss", "timm.models.helpers", "timm.optim", "timm.scheduler", "timm.utils"),
    "torchvision": ("torchvision",),
    "mmengine": ("mmcv", "mmdet", "mmengine", "mmseg"),
}


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


class Package(ModuleType):
    """A module that holds every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unused(self.__name__.partition(".")[0], name)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds some packages and every module of them.

    Args:
        packages: their names.
    """

    def __init__(self, packages: Collection[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of a package among these, or of a module in one."""
        parts = fullname.split(".")
        known = any(".".join(parts[:n]) in self.packages for n in range(1, len(parts) + 1))
        return ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that holds every name."""
        return Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It has no code."""
