"""What several commands share: arguments, results on stdout, progress and notices on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

import qkf_deploy as qd
from qkf_deploy.cli.options import Decorator
from qkf_deploy.cli.outputs import Command, Output, Place
from qkf_deploy.cli.talk import ProgressLines, is_quiet, is_verbose
from qkf_deploy.options import TableFormat

if TYPE_CHECKING:
    from qkf_deploy.display.tables import Sheet


class ClosedPipe(Exception):  # noqa: N818 - what happened, not an error
    """Whoever read stdout has closed it, as ``head`` does."""


#: Type of an argument or option that is a path.
PATH = Place()


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--format table|json|csv|md``."""
    return click.option(
        "--format", "fmt", type=click.Choice(get_args(TableFormat)), default="table", show_default=True,
        help="Output format.",
    )(function)  # fmt: skip


#: Of the group and of each command by itself: click keeps the option of the first context that asks for it.
HELP = {"help_option_names": ["-h", "--help"]}


def command(name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose outputs are checked before it works."""
    return click.command(name, cls=Command, context_settings=HELP)


def output_option(help_text: str, required: bool = True) -> Decorator:
    """``-o FILE``."""
    return click.option("-o", "--output", type=Output(), required=required, help=help_text)


def hardware_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--hardware FILE``, repeatable."""
    text = "What `hardware --format json` wrote, shown beside; repeatable."
    return click.option("--hardware", multiple=True, type=PATH, metavar="FILE", help=text)(function)


def measured(source: Path, images: Path | None, options: dict[str, Any]) -> qd.RunFile:
    """The run a command is about: stored, or made now."""
    with progress("simulating") as tick:
        run = qd.measure(source, images, progress=tick, **options)
    if images is not None:
        notices(run.notices)
    return run


def emit(text: str) -> None:
    """A result, on stdout.

    Raises:
        ClosedPipe: nobody reads it any more.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # names of files need not be valid text
    try:
        click.echo(text, nl=not text.endswith("\n"))
    except BrokenPipeError as error:
        raise ClosedPipe from error


def show(sheet: Sheet, fmt: TableFormat, notes: str = "") -> None:
    """A table in the chosen format; ``notes`` are printed under tables for people only."""
    from qkf_deploy.report.formats import below, for_people, to_csv, to_json

    if fmt == "json":
        emit(to_json({"schema_version": 1, "title": sheet.title, "rows": sheet.records()}))
        return
    emit(to_csv(sheet) if fmt == "csv" else for_people(fmt)(sheet))
    if notes and fmt != "csv":
        emit(below(fmt, notes))


def note(text: str) -> None:
    """A notice, on stderr; none with --quiet."""
    if not is_quiet():
        click.echo(f"note: {text}", err=True)


def notices(texts: tuple[str, ...]) -> None:
    """Notices, on stderr: the first few, with --verbose all."""
    most = len(texts) if is_verbose() else 8
    for text in texts[:most]:
        note(text)
    if len(texts) > most:
        note(f"... and {len(texts) - most} more (-v shows all, and `qkf-deploy inspect`)")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on stderr, a bar on a terminal, else a line now and then; yields a function of (done, total)."""
    with messages():
        if is_quiet():
            yield lambda done, total: None
            return
        if not sys.stderr.isatty():
            lines = ProgressLines(what)
            yield lines.tick
            lines.end()
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Notes(logging.Handler):
    """Log messages as notes, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """What engines and executors log about a long wait goes to stderr meanwhile."""
    logger, notes = logging.getLogger("qkf_deploy"), _Notes(logging.INFO)
    before = logger.level
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(before)
