"""The core imports on Python 3.10 without optional packages."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import qkf_deploy
from qkf_deploy import ir, ops, passes

CORE = [
    f"{package.__name__}.{module.name}"
    for package in (ir, ops, passes)
    for module in pkgutil.iter_modules(package.__path__)
] + [f"{qkf_deploy.__name__}.{name}" for name in ("bundle", "errors", "ledger", "doctor")] + [
    f"qkf_deploy.simulators.{name}" for name in ("counting", "inputs", "reference", "run")
]  # fmt: skip


@pytest.mark.parametrize("name", CORE)
def test_imports(name: str) -> None:
    importlib.import_module(name)
