"""Typed errors. Each one says where it happened and what to do next.

The command line prints them as ``error: <where>: <what>`` followed by ``try: <hint>`` and exits with
``exit_code``; a traceback is printed only for bugs.
"""

from __future__ import annotations


class QkfError(Exception):
    """Base of every error a user can cause.

    Args:
        message: what is wrong, one sentence without a final full stop.
        where: the place: a file, a module path, a node name.
        hint: the next step for the user.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  try: {self.hint}" if self.hint else head


class CheckFailed(QkfError):  # noqa: N818 - reads as what happened
    """A comparison the user asked for did not hold (mismatch, budget exceeded)."""

    exit_code = 1


class UsageError(QkfError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = 2


class KeywordError(UsageError, TypeError):
    """An argument that a function does not have, or one that is missing; a ``TypeError`` as Python raises it."""


class InputError(QkfError):
    """A file or an array that cannot be used: missing, truncated, of the wrong shape or type."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read safely or matches no known model."""


class GraphError(InputError):
    """A graph that breaks a rule of the IR. Names the node."""


class UnsupportedError(InputError):
    """Something that has no meaning here. Lists every offender at once."""


class ProofError(InputError):
    """A width proof that does not hold for the weights it came with."""


class ProfileError(InputError):
    """An energy profile or chip file that breaks its schema. Names file and line."""


class MissingComponent(QkfError):  # noqa: N818 - reads as what happened
    """An optional dependency or interpreter that is not installed."""

    exit_code = 4


class EngineError(QkfError):
    """An engine in another process that failed, was stopped, or ran past its time. Nothing it returned is used."""

    exit_code = 5


class IncompleteError(QkfError):
    """A run whose samples are not all there: some failed, or are missing still. What is there stays usable."""

    exit_code = 5


def damage(error: BaseException) -> str:
    """What is wrong with data that a reader stumbled over, without Python's words for it (``--debug`` shows those)."""
    if isinstance(error, KeyError):
        return f"{str(error)[:60]} is missing"
    return "nested too deeply" if isinstance(error, RecursionError) else "a part of it has another type or length"


def told(error: BaseException) -> str:
    """What a library or the system says of a file, on one line; without Python's words where it has no better ones."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, LookupError | TypeError | AttributeError | ArithmeticError | RecursionError):
        return damage(error)
    text = " ".join(str(error).split()) or "it gives no reason"
    return text if len(text) <= 200 else text[:197] + "..."
