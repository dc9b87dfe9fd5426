"""The models that are known to work or to be refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkf_deploy.report.formats import Column, Sheet

if TYPE_CHECKING:
    from qkf_deploy.models.zoo import Entry

_COLUMNS = (
    Column("model", "model", True),
    Column("state", "state", True),
    Column("source", "source", True),
    Column("input", "input", True),
    Column("image_size", "image"),
    Column("time_steps", "T"),
    Column("parameters", "parameters"),
    Column("dense_macs_per_step", "dense MACs / step"),
    Column("note", "note", True),
)
_COMMANDS = (Column("model", "model", True), Column("command", "command", True))


def model_sheet(entries: Sequence[Entry]) -> Sheet:
    """One row per model."""
    rows = [
        (e.name, e.state, e.source, *((e.input, e.image_size, e.time_steps, e.parameters, e.macs)
         if e.state == "works" else (None,) * 5), e.note)
        for e in entries
    ]  # fmt: skip
    shown = [tuple("" if v is None else f"{v:,}" if isinstance(v, int) else v for v in row) for row in rows]
    return Sheet("models", _COLUMNS, tuple(rows), tuple(shown))


def command_sheet(entries: Sequence[Entry]) -> Sheet:
    """The trace command of every model that works."""
    rows = tuple((e.name, _command(e)) for e in entries if e.state == "works")
    return Sheet("commands", _COMMANDS, rows, rows)


def _command(entry: Entry) -> str:
    source = "checkpoint.pth" if entry.source == "checkpoint" else entry.source
    return f"qkf-deploy trace {source} {entry.arguments} -o net.qkf"
