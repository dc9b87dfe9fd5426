"""`qkf-deploy simulate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, output_option, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.cli.outputs import Output
from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import keywords, part
from qkf_deploy.options import DataOptions, EngineOptions, EventFormat, TableFormat

#: What --every-step can be given with.
_BESIDE_EVERY_STEP = {"network", "images", "every_step", "fmt", *(keyword.name for keyword in keywords(DataOptions))}


@command()
@click.argument("network", type=PATH)
@click.argument("images", type=PATH)
@output_option("Write the run (predictions, counts, widths, provenance) for `energy`, `map`, `report`.", required=False)
@click.option("--save", "save", type=Output(), help="Write logits and --record values as .npz.")
@click.option("--record", multiple=True, metavar="NODE", help="Keep a node's output in --save; 'all' keeps every node.")
@click.option(
    "--membranes",
    multiple=True,
    metavar="NODE",
    help="Keep a neuron's charged membrane in --save; 'all': of all neurons.",
)
@click.option("--events", type=Output(folder=True), help="Write every layer's events (t,c,y,x,value) here.")
@click.option(
    "--event-format", type=click.Choice(get_args(EventFormat)), default="npz", show_default=True, help="aer is text."
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Classes shown per image.")
@click.option(
    "--every-step",
    is_flag=True,
    help="Accuracy after 1, 2, 4, 8 ... time steps and after the last one, in memory that does not grow with T; no "
    "counts. No other engine, nothing kept.",
)
@options_of(EngineOptions)
@options_of(DataOptions)
@format_option
def simulate(
    network: Path,
    images: Path,
    output: Path | None,
    save: Path | None,
    record: tuple[str, ...],
    membranes: tuple[str, ...],
    events: Path | None,
    event_format: EventFormat,
    top: int,
    every_step: bool,
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Run a network on images: classes per image and operation counts.

    IMAGES is a data set in one of the forms of docs/datasets.md: an image file, a folder, a .npy array, a .npz file ...

    \b
    Example:
      qkf-deploy simulate net.int.qkf images/ --top 3
    """
    from qkf_deploy.report.classes import answer_sheet, run_summary

    if record and save is None and events is None:
        raise UsageError("--record keeps values for --save and --events", hint="add --save values.npz")
    if membranes and save is None:
        raise UsageError("--membranes keeps membranes for --save", hint="add --save values.npz")
    if every_step:
        _check_alone(click.get_current_context())
    graph = qd.load(network)
    given = qd.load_images(images, graph, **part(options, DataOptions))
    if every_step:
        notices(given.notices)
        show(qd.over_time(graph, given.array, given.labels).sheet(), fmt)
        return
    wanted = [*record, *(["gates"] if output else []), *(["events"] if events else [])]
    with progress("simulating") as tick:
        run = qd.simulate(graph, given.array, record=wanted, membranes=membranes, progress=tick, **options)
    run = replace(run, notices=(*given.notices, *run.notices))
    notices(run.notices)
    show(answer_sheet(run, given.names, given.labels, graph.class_names, top), fmt, run_summary(run, given.labels))
    if events is not None:
        note(f"wrote {qd.export_events(run, events, event_format)}")
    if save is not None:
        qd.save_arrays(run, save)
        emit(f"wrote {save}")
    if output is not None:
        about = {"names": given.names, "labels": given.labels, "data": given.digest}
        qd.save_run(graph, run, output, image=given.array[0], place=given.place, **about)
        note(f"wrote {output}")


def _check_alone(context: click.Context) -> None:
    """Raises UsageError for options that --every-step has no use for."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in _BESIDE_EVERY_STEP
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"--every-step keeps nothing and has an engine of its own, it takes no {', '.join(given)}",
            hint="leave the other options out",
        )
