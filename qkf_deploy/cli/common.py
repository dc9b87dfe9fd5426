"""Options and output that several commands share."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from qkf_deploy.errors import UsageError
from qkf_deploy.report.formats import FORMATS, Sheet, to_csv, to_json, to_markdown, to_text

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--format table|json|csv|md``."""
    return click.option(
        "--format", "fmt", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
    )(function)


def output_option(help_text: str, required: bool = True) -> Decorator:
    """``-o FILE``."""
    return click.option("-o", "--output", type=click.Path(path_type=Path), required=required, help=help_text)


def image_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How images are read: ``--resize`` and ``--limit``."""
    function = click.option("--limit", type=click.IntRange(1), help="Use at most this many images.")(function)
    return click.option(
        "--resize", is_flag=True, help="Scale and centre-crop image files of another size (otherwise an error)."
    )(function)


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which engine runs, and how."""
    function = click.option("--threads", type=click.IntRange(1), help="Threads (event engine).")(function)
    return click.option(
        "--engine", "--backend", default="auto", show_default=True, help="auto, reference, event, onnx or lava."
    )(function)


def trace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a checkpoint or module does not say about itself."""
    options = [
        click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights for a module:factory."),
        click.option("--arch", help="Named build, instead of recognising the checkpoint (see docs/models.md)."),
        click.option("--time-steps", type=click.IntRange(1, 4096), help="T."),
        click.option("--heads", callback=_integers, help="Attention heads, one number or one per stage: 6 or 6,6,6."),
        click.option("--image-size", type=click.IntRange(1, 4096), help="Height and width of the input in pixels."),
        click.option("--in-channels", type=click.IntRange(1), help="Input channels (factories)."),
        click.option(
            "--input",
            "input",
            type=click.Choice(["image", "sequence", "frames", "step"]),
            help="How a module takes its input: (B,C,H,W), (T,B,C,H,W), event frames (B,T,C,H,W), or (B,C,H,W) once "
            "per time step. Found by trying; event frames must be said.",
        ),
        click.option("--preset", help="Pixel normalization: imagenet, cifar10 or none."),
        click.option("--mean", callback=_floats, help="Mean per channel of pixels in 0..1: 0.485,0.456,0.406."),
        click.option("--std", callback=_floats, help="Standard deviation per channel."),
        click.option(
            "--factory-arg", "factory_args", multiple=True, metavar="NAME=VALUE", help="Argument of a factory."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def trace_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Options of :func:`trace_options` as keyword arguments of :func:`qkf_deploy.api.trace`."""
    given = dict(given)
    given["factory_arguments"] = _factory_arguments(given.pop("factory_args"))
    return {k: v for k, v in given.items() if v not in (None, {}, ())}


def _factory_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    import ast

    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--factory-arg {pair!r}", hint="write NAME=VALUE")
        try:
            out[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            out[name] = text
    return out


def _floats(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    return _list(value, float)


def _integers(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    numbers = _list(value, int)
    return numbers[0] if numbers is not None and len(numbers) == 1 else numbers


def _list(value: str | None, kind: Callable[[str], Any]) -> tuple[Any, ...] | None:
    if value is None:
        return None
    try:
        return tuple(kind(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers separated by commas") from None


def emit(text: str) -> None:
    """A result, on stdout."""
    click.echo(text, nl=not text.endswith("\n"))


def show(sheet: Sheet, fmt: str, below: str = "") -> None:
    """A table in the chosen format; ``below`` is printed under tables for people only."""
    writers = {"csv": to_csv, "md": to_markdown, "table": to_text}
    if fmt == "json":
        emit(to_json({"schema_version": 1, "title": sheet.title, "rows": sheet.records()}))
        return
    emit(writers[fmt](sheet))
    if below and fmt in ("table", "md"):
        emit(below)


def note(text: str) -> None:
    """A notice, on stderr."""
    click.echo(f"note: {text}", err=True)


def notices(texts: tuple[str, ...]) -> None:
    """Notices, on stderr, the first few in full."""
    for text in texts[:8]:
        note(text)
    if len(texts) > 8:
        note(f"... and {len(texts) - 8} more (`qkf-deploy inspect` shows all)")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr (only on a terminal); yields a function of (done, total)."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        with _engine_messages():
            yield lambda done, total: bar.update(task, completed=done, total=total)


def start_engine(engine: str, integer: bool) -> None:
    """Load numba, where the event engine will run, without the BLAS it looks for in scipy.

    Kernels of this package call none, and importing scipy takes a sixth of the start. Only for a process that runs
    nobody else's kernels.

    Args:
        engine: as given by the user.
        integer: the network is an integer one.
    """
    absent = "scipy" not in sys.modules
    if engine not in ("auto", "event") or not integer or not absent or importlib.util.find_spec("numba") is None:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment] # makes the import fail, as if scipy were not installed
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules["scipy"]


class _Notes(logging.Handler):
    """Log messages as notes, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextlib.contextmanager
def _engine_messages() -> Iterator[None]:
    """What engines log about a long wait goes to stderr meanwhile."""
    logger, notes = logging.getLogger("qkf_deploy.simulators"), _Notes(logging.INFO)
    before = logger.level
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(before)
