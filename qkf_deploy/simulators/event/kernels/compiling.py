"""Compiling kernels: a cache that notices every change of their code, and a word when it takes a while."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event

from qkf_deploy.simulators.event.kernels.disk import CheckedFiles, not_stored
from qkf_deploy.simulators.event.kernels.inner import KernelCompiler

_PACKAGE = __name__.rpartition(".")[0]
_logger = logging.getLogger(_PACKAGE)
#: Seconds between two words on what is being compiled.
_PAUSE = 2.0


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compiled without the interpreter's lock, cached on disk until any module of this package changes.

    numba's own cache watches only the file that defines a function, not those it calls: a kernel that was compiled
    with an older version of a helper would be taken for current.

    Args:
        options: for :func:`numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        settings: Any = {"nogil": True, "no_cfunc_wrapper": True, "pipeline_class": KernelCompiler, **options}
        dispatcher: Any = njit(**settings)(function)
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # numba found no folder that can be written
            not_stored("no folder for them can be written")
            return dispatcher
        stored = dispatcher._cache
        stamp = (stored._cache_file._source_stamp, sources_stamp())
        stored._cache_file = CheckedFiles(stored._cache_path, stored._impl.filename_base, stamp)
        return dispatcher

    return decorate


@cache
def sources_stamp() -> str:
    """Digest of all modules of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _OnCompile(event.Listener):
    """numba reports a compilation only if the kernel was not in its cache."""

    def __init__(self, instructions: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._instructions, self._clock = instructions, clock
        self._done, self._said_at = 0, -math.inf

    def on_start(self, event: Any) -> None:
        function, now = event.data["dispatcher"].py_func, self._clock()
        if not _is_ours(function) or now < self._said_at + _PAUSE:
            return
        if self._said_at < 0:
            _logger.info("compiling kernels for %s, once", self._instructions)
        else:
            name = function.__qualname__.split(".")[0]
            _logger.info("compiling kernels: %d functions done, now %s", self._done, name)
        self._said_at = now

    def on_end(self, event: Any) -> None:
        self._done += _is_ours(event.data["dispatcher"].py_func)


def _is_ours(function: Callable[..., Any]) -> bool:
    return function.__module__.startswith(_PACKAGE)


@cache
def announce(instructions: str) -> None:
    """Log compilations of kernels of this package at level INFO, the first and then one every few seconds.

    Further calls change nothing.

    Args:
        instructions: name of the instruction set, for the message.
    """
    event.register("numba:compile", _OnCompile(instructions))
