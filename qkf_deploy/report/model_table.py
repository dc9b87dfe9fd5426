"""The models that are known to work or to be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qkf_deploy.display.tables import Cell, Field, Sheet, tabulate

if TYPE_CHECKING:
    from qkf_deploy.models.zoo import Entry


def _known(key: str, title: str, value: Callable[[Entry], Cell], left: bool = False) -> Field[Entry]:
    """What is known of a model that works."""
    return Field(key, title, lambda e: value(e) if e.state == "works" else None, left=left)


def _command(entry: Entry) -> str:
    source = "checkpoint.pth" if entry.source == "checkpoint" else entry.source
    return f"qkf-deploy trace {source} {entry.arguments} -o net.qkf"


_MODEL: Field[Entry] = Field("model", "model", lambda e: e.name, left=True)
_FIELDS: tuple[Field[Entry], ...] = (
    _MODEL,
    Field("state", "state", lambda e: e.state, left=True),
    Field("source", "source", lambda e: e.source, left=True),
    _known("input", "input", lambda e: e.input, left=True),
    _known("image_size", "image", lambda e: e.image_size),
    _known("time_steps", "T", lambda e: e.time_steps),
    _known("parameters", "parameters", lambda e: e.parameters),
    _known("dense_macs_per_step", "dense MACs / step", lambda e: e.macs),
    Field("note", "note", lambda e: e.note, left=True),
)
_COMMANDS: tuple[Field[Entry], ...] = (_MODEL, Field("command", "command", _command, left=True))


def model_sheet(entries: Sequence[Entry]) -> Sheet:
    """One row per model."""
    return tabulate("models", _FIELDS, entries)


def command_sheet(entries: Sequence[Entry]) -> Sheet:
    """The trace command of every model that works."""
    return tabulate("commands", _COMMANDS, [e for e in entries if e.state == "works"])
