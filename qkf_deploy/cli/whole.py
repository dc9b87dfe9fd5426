"""`qkf-deploy run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, show
from qkf_deploy.cli.evaluation_progress import require_complete, watched
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.options import TableFormat
from qkf_deploy.pipeline.run_options import RunOptions


@command("run")
@click.argument("source")
@click.argument("data", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, help="Folder for everything: a new one, or that of an earlier run.")
@options_of(RunOptions)
@click.option(
    "--profile", "profiles", multiple=True,
    help="Price profile; repeatable. The first one is the summary's [default: as `report`].",
)  # fmt: skip
@format_option
@click.pass_context
def run_command(
    ctx: click.Context, source: str, data: Path | None, output: Path | None, fmt: TableFormat, **options: Any
) -> None:
    """From a checkpoint to a page: trace, fold, quantize, evaluate, price, report.

    SOURCE is what `trace` takes, or a float .qkf file; DATA what `evaluate` takes. Run again, it does only what has
    changed, and goes on where it was stopped. The folder has the networks, their evaluations, the page, `run.toml` with
    what was asked for, and `commands.sh` with the single commands; with --chip the page has energy and time there.
    SOURCE may be such a TOML file: options on the command line go before those in it. Exit code 5: samples failed or
    are missing.

    \b
    Examples:
      qkf-deploy run checkpoint.pth val/ --bits 8,4 -o out/
      qkf-deploy run checkpoint.pth val/ --chip generic-digital -o out/
      qkf-deploy run out/run.toml
    """
    from qkf_deploy.report.evaluation_table import render_comparison
    from qkf_deploy.report.hardware_view import read_view, views_sheet

    given = {k: v for k, v in options.items() if ctx.get_parameter_source(k) is not ParameterSource.DEFAULT}
    if source.endswith(".toml"):
        asked = qd.read_record(source)
        given = {**asked, **given}
        source, data, output = given.pop("source"), data or given.pop("data"), output or given.pop("output", None)
        given = {k: v for k, v in given.items() if k not in ("data", "output")}
    if data is None or output is None:
        raise UsageError("a run needs a network, data and a folder", hint="qkf-deploy run SOURCE DATA -o FOLDER")
    with watched() as watch:
        made = qd.run(source, data, output, tick=watch.tick, stage=watch.begin, tell=_assumed, **given)
    for outcome in made.outcomes.values():
        notices(outcome.notices)
    compared = qd.compare_runs(made.runs, *given.get("profiles", ())[:1])
    emit(render_comparison(compared, fmt))
    if made.chips and fmt not in ("json", "csv"):
        show(views_sheet([read_view(path) for path in made.chips]), fmt)
    kept = [*made.unchanged, *(f"{name}.sqlite" for name, o in made.outcomes.items() if o.kept)]
    if kept:
        note(f"as before: {', '.join(kept)}")
    if made.earlier:
        note(f"of an earlier run with other options, and not on this page: {', '.join(made.earlier)}")
    note(f"everything is in {made.folder}; the page is {made.report}")
    for name, outcome in made.outcomes.items():
        require_complete(outcome, made.folder / f"{name}.sqlite")


def _assumed(line: str) -> None:
    """What the checkpoint does not say, before anything takes long."""
    click.echo(line, err=True)
