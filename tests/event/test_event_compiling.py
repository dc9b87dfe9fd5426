"""The first compilation of a kernel is announced, once; loading one from the cache is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qkf_deploy.simulators.event.compiling import _OnCompile
from qkf_deploy.simulators.event.stream_kernels import totals

_LOGGER = "qkf_deploy.simulators.event"


def _compiling(function: Callable[..., Any]) -> Any:
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


def test_first_compilation_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    listener = _OnCompile("AVX2")
    with caplog.at_level(logging.INFO, _LOGGER):
        listener.on_start(_compiling(totals.py_func))
        listener.on_start(_compiling(totals.py_func))
    assert [r.getMessage() for r in caplog.records] == ["compiling kernels for AVX2, once"]


def test_kernels_of_others_are_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, _LOGGER):
        _OnCompile("AVX2").on_start(_compiling(np.dot))
    assert not caplog.records
