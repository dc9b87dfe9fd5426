"""Says, once per process, that kernels are being compiled: a first run takes a while without any result."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from numba.core import event

_PACKAGE = __name__.rpartition(".")[0]
_logger = logging.getLogger(_PACKAGE)


class _OnCompile(event.Listener):
    """numba reports a compilation only if the kernel was not in its cache."""

    def __init__(self, instructions: str) -> None:
        self._instructions, self._said = instructions, False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not self._said and function.__module__.startswith(_PACKAGE):
            self._said = True
            _logger.info("compiling kernels for %s, once", self._instructions)

    def on_end(self, event: Any) -> None:
        return


@cache
def announce(instructions: str) -> None:
    """Log the first compilation of a kernel of this package at level INFO; further calls change nothing.

    Args:
        instructions: name of the instruction set, for the message.
    """
    event.register("numba:compile", _OnCompile(instructions))
