"""How much a command says: `-q`, `-v`, `--rows`, and progress where there is no terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import click

_QUIET, _VERBOSE = "qkf_deploy.quiet", "qkf_deploy.verbose"
#: Rows of a longer table that a terminal gets.
ROWS = 40
#: Seconds between two lines of progress.
INTERVAL_S = 10.0


def talk_parameters(*, hidden: bool) -> list[click.Parameter]:
    """The options; commands take them too, without listing them each time."""

    def flag(*names: str, key: str, text: str) -> click.Option:
        def keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:
            ctx.meta[key] = value or ctx.meta.get(key, False)
            if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
                raise click.UsageError("--quiet and --verbose say the opposite of each other", ctx)

        return click.Option(names, is_flag=True, expose_value=False, callback=keep, hidden=hidden, help=text)

    return [
        flag("-q", "--quiet", key=_QUIET, text="Results only: no notices, no progress."),
        flag("-v", "--verbose", key=_VERBOSE, text="All notices, and how long each part took."),
        click.Option(
            ["--rows"], metavar="N", expose_value=False, callback=_screen, hidden=hidden,
            help=f"Rows of a table, or all [default: {ROWS} on a terminal, else all].",
        ),
    ]  # fmt: skip


def talk_options(*, hidden: bool) -> Callable[[Any], Any]:
    """:func:`talk_parameters` as a decorator of a function that becomes a command."""

    def add(function: Any) -> Any:
        function.__click_params__ = [*getattr(function, "__click_params__", []), *talk_parameters(hidden=hidden)[::-1]]
        return function

    return add


def is_quiet() -> bool:
    """True with --quiet."""
    return _said(_QUIET)


def is_verbose() -> bool:
    """True with --verbose."""
    return _said(_VERBOSE)


def _said(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def _screen(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """What tables may take from here to the end of the command line; a command keeps what the group was told."""
    if value is None and ctx.parent is not None:
        return
    from qkf_deploy.display.screen import SCREEN, Screen

    terminal = sys.stdout.isatty()
    rows = ROWS if terminal else None
    if value is not None:
        if value != "all" and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise click.BadParameter(f"{value!r} is neither a number of rows nor all", ctx, param)
        rows = None if value == "all" else int(value)
    width = shutil.get_terminal_size().columns if terminal else None
    token = SCREEN.set(Screen(rows, width))
    ctx.call_on_close(lambda: SCREEN.reset(token))


class ProgressLines:
    """Progress as lines on stderr, at most one in ten seconds, for logs of batch jobs."""

    def __init__(self, what: str) -> None:
        self.what, self.start = what, time.monotonic()
        self.last = self.start

    def tick(self, done: int, total: int) -> None:
        """So much of it is done."""
        now = time.monotonic()
        if now - self.last >= INTERVAL_S:
            self.last = now
            share = f"{done:,} of {total:,} ({done / total:.0%})" if total else f"{done:,}"
            click.echo(f"{self.what}: {share} after {now - self.start:.0f} s", err=True)

    def end(self) -> None:
        """It is done; said with --verbose."""
        if is_verbose():
            click.echo(f"{self.what}: {time.monotonic() - self.start:.1f} s", err=True)
