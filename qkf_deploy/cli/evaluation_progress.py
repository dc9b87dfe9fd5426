"""How far an evaluation is, on stderr: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qkf_deploy.cli.common import messages, note
from qkf_deploy.errors import IncompleteError
from qkf_deploy.evaluation.tally import PROFILE, Tally

if TYPE_CHECKING:
    from qkf_deploy.evaluation.run import Outcome

#: Seconds between two lines where stderr is no terminal.
INTERVAL_S = 30.0


@dataclass
class Watch:
    """What the last tick said; ``None`` before the first."""

    tally: Tally | None = None

    def tick(self, tally: Tally) -> None:
        """Remember how far it is."""
        self.tally = tally

    def begin(self, what: str) -> None:
        """Say what begins."""
        self.tally = None
        click.echo(f"{what} ...", err=True)


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


def resume_command(run: Path) -> str:
    """The command line that goes on with a run."""
    return f"qkf-deploy evaluate --resume {shlex.quote(str(run))}"


def require_complete(ended: Outcome, run: Path) -> None:
    """Raises IncompleteError if samples failed or are missing."""
    from qkf_deploy.display.numbers import quantity

    for indices, reason in ended.lost:
        first, last = indices[0], indices[-1]
        which = f"samples {first} to {last} are" if last > first else f"sample {first} is"
        note(f"{which} missing: {reason}")
    if ended.complete:
        return
    tally = ended.tally
    missing = tally.samples - tally.stored
    found = [f"{count:,} {what}" for count, what in ((tally.failed, "failed"), (missing, "are missing")) if count]
    raise IncompleteError(
        f"of {quantity(tally.samples, 'sample')} {' and '.join(found)}",
        where=str(run),
        hint=f"{resume_command(run)} --shard 1 finds the sample" if missing else "the rows of the run say why",
    )


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

            def begin(self, what: str) -> None:
                bar.update(task, completed=0, total=None, description=what)

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
