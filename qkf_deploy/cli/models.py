"""`qkf-deploy models`."""

from __future__ import annotations

import click

from qkf_deploy.cli.common import format_option, show
from qkf_deploy.models.zoo import ENTRIES, Entry
from qkf_deploy.report.formats import Column, Sheet

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


@click.command()
@click.option("--commands", is_flag=True, help="Print the trace command of each model instead.")
@format_option
def models(commands: bool, fmt: str) -> None:
    """List models that are known to work, with their size, and those that are refused, with the reason.

    \b
    Example:
      qkf-deploy models --format md
    """
    entries = [e for e in ENTRIES if e.state == "works"] if commands else list(ENTRIES)
    show(_command_sheet(entries) if commands else sheet(entries), fmt)


def sheet(entries: list[Entry]) -> Sheet:
    """One row per model."""
    rows = [
        (e.name, e.state, e.source, *((e.input, e.image_size, e.time_steps, e.parameters, e.macs)
         if e.state == "works" else (None,) * 5), e.note)
        for e in entries
    ]  # fmt: skip
    shown = [tuple("" if v is None else f"{v:,}" if isinstance(v, int) else v for v in row) for row in rows]
    return Sheet("models", _COLUMNS, tuple(rows), tuple(shown))


def _command_sheet(entries: list[Entry]) -> Sheet:
    rows = tuple((e.name, _command(e)) for e in entries)
    return Sheet("commands", (Column("model", "model", True), Column("command", "command", True)), rows, rows)


def _command(entry: Entry) -> str:
    source = "checkpoint.pth" if entry.source == "checkpoint" else entry.source
    return f"qkf-deploy trace {source} {entry.arguments} -o net.qkf"
