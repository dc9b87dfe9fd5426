"""How far an evaluation is, on stderr: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import click

from qkf_deploy.cli.common import messages
from qkf_deploy.evaluation.tally import PROFILE, Tally

#: Seconds between two lines where stderr is no terminal.
INTERVAL_S = 30.0


@dataclass
class Watch:
    """What the last tick said; ``None`` before the first."""

    tally: Tally | None = None

    def tick(self, tally: Tally) -> None:
        """Remember how far it is."""
        self.tally = tally


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Shows what the yielded watch is told, until the block ends."""
    with messages(), _bar() if sys.stderr.isatty() else _lines() as watch:
        yield watch


def described(tally: Tally) -> str:
    """A tally on one line: ``640 of 50,000 (1.3%), 12 per second, 1 h 07 min left, top-1 76.20%``, and energy."""
    from qkf_deploy.display.numbers import joules  # --help imports this module

    parts = [f"{tally.stored:,} of {tally.samples:,} ({tally.stored / max(tally.samples, 1):.1%})"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    if tally.rate is not None and tally.seconds_left is not None:
        parts += [f"{tally.rate:.3g} per second", f"{duration(tally.seconds_left)} left"]
    if tally.accuracy is not None:
        parts.append(f"top-1 {tally.accuracy:.2%}")
    if tally.energy_pj is not None:
        parts.append(f"{joules(tally.energy_pj)} per sample ({PROFILE})")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Time for people: ``42 s``, ``7 min 05 s``, ``11 h 30 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} min"


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("evaluating"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=None)

        class Bar(Watch):
            def tick(self, tally: Tally) -> None:
                super().tick(tally)
                bar.update(task, completed=tally.stored, total=tally.samples, description=described(tally))

        yield Bar()


@contextlib.contextmanager
def _lines() -> Iterator[Watch]:
    """A line every :data:`INTERVAL_S` seconds, also while a long shard runs."""
    watch, ended = Watch(), threading.Event()

    def report() -> None:
        while not ended.wait(INTERVAL_S):
            if watch.tally is not None:
                click.echo(f"evaluating: {described(watch.tally)}", err=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
