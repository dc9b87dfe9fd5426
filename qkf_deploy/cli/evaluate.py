"""`qkf-deploy evaluate`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, output_option
from qkf_deploy.cli.evaluation_progress import Watch, require_complete, resume_command, watched
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.keywords import keywords
from qkf_deploy.options import EvaluateOptions, ResumeOptions, TableFormat

if TYPE_CHECKING:
    from qkf_deploy.hw_models.profiles import Profile


@command()
@click.argument("network", type=PATH, required=False)
@click.argument("data", type=PATH, required=False)
@output_option("Where results are stored, sample by sample.", required=False)
@click.option("--resume", type=PATH, metavar="RUN", help="Go on with a run; NETWORK and DATA only where they moved.")
@options_of(EvaluateOptions)
@click.option(
    "--profile", "profiles", multiple=True, default=("paper-eq23",), show_default=True,
    help="Price profile of the summary: a name (`qkf-deploy profiles` lists them) or a TOML file. Repeatable.",
)  # fmt: skip
@format_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    network: Path | None,
    data: Path | None,
    output: Path | None,
    resume: Path | None,
    profiles: tuple[str, ...],
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Run a network on a whole data set: accuracy, rates and energy, resumable after any interruption.

    Every result is stored as soon as it is there. A sample that cannot be read is stored with its error and stays in
    the denominator. Exit code 5: samples failed or are missing.

    \b
    Examples:
      qkf-deploy evaluate net.int.qkf val/ -o run.sqlite --jobs 2
      qkf-deploy evaluate --resume run.sqlite
      qkf-deploy evaluate net.qkf val/ -o sweep.sqlite --steps 1,2,4 --bits 4,8
    """
    run = resume or output
    if run is None or (resume and output):
        raise UsageError("either -o for a new run, or --resume for one that was interrupted", hint="give one of them")
    prices = [qd.load_profile(name) for name in profiles]  # a wrong one is found before the long part
    _say_if_crowded(options["jobs"], options["threads"])
    with watched() as watch, _resumable(run, watch):
        if resume is not None:
            _check_resumable(ctx)
            going_on = {k.name: options[k.name] for k in keywords(ResumeOptions) if k.help.command_line}
            ended = qd.resume(run, network=network, data=data, tick=watch.tick, **going_on)
        elif network is not None and data is not None:
            ended = qd.evaluate(network, data, run, tick=watch.tick, force=ctx.meta["qkf_deploy.force"], **options)
        else:
            raise UsageError("an evaluation needs a network and data", hint="`qkf-deploy evaluate NETWORK DATA -o RUN`")
    notices(ended.notices)
    if ended.tally.stored > ended.tally.failed:
        emit(_summary(run, prices, fmt))
    require_complete(ended, run)


def _summary(run: Path, prices: Sequence[Profile], fmt: TableFormat) -> str:
    """Accuracy and energy of what is stored; of a sweep one row per point, energy by the first profile."""
    from qkf_deploy.report.evaluation_table import render_evaluation
    from qkf_deploy.report.sweep_page import render_sweep

    runs = qd.load_runs(run)
    if len(runs) + len(runs.left_out) > 1:
        return render_sweep(qd.summarize_sweep(runs, prices[0]), fmt)
    return render_evaluation(qd.summarize(qd.load_run(run), prices), fmt)


def _say_if_crowded(jobs: int, threads: int | None) -> None:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs > 1 and threads is not None and jobs * threads > processors:
        note(f"{jobs} processes of {threads} threads share {processors} processors; without --threads each takes one")


def _check_resumable(ctx: click.Context) -> None:
    """What decides results stands in the run."""
    decided = {k.name for k in keywords(EvaluateOptions)} - {k.name for k in keywords(ResumeOptions)}
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name in decided:
            raise UsageError(f"{param.opts[0]} cannot change in a run that was begun", hint="leave it out")


@contextlib.contextmanager
def _resumable(run: Path, watch: Watch) -> Iterator[None]:
    """Says how to go on, whatever ended a run that was begun."""
    try:
        yield
    except BaseException:
        if watch.tally is not None:
            with contextlib.suppress(InputError):
                _say_how_far(run)
        raise


def _say_how_far(run: Path) -> None:
    """From the file, not from what was told last: a signal may come between the two."""
    from qkf_deploy.display.numbers import quantity
    from qkf_deploy.runs.file import how_far

    stored, samples = how_far(run)
    if stored:
        note(f"{stored:,} of {quantity(samples, 'sample')} are stored; go on with: {resume_command(run)}")
