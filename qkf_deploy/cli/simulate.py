"""`qkf-deploy simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from qkf_deploy import api
from qkf_deploy.cli.common import (
    emit,
    engine_options,
    format_option,
    image_options,
    note,
    notices,
    output_option,
    progress,
    show,
    start_engine,
)  # fmt: skip
from qkf_deploy.converters.event_streams import write_events
from qkf_deploy.datasets import images as image_files
from qkf_deploy.ir import Graph
from qkf_deploy.report.formats import Column, Sheet, si
from qkf_deploy.runs.file import write_run
from qkf_deploy.runs.gates import gate_nodes
from qkf_deploy.simulators.run import Run

#: The counts a user sees at once; the run file has all of them.
_SHOWN = (
    "ac_unary",
    "ac_graded",
    "mac",
    "coincidences",
    "gate_ands",
    "events_stopped",
    "neuron_updates_driven",
    "resets",
)


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@output_option("Write the run (counts, widths, provenance) as JSON, for `qkf-deploy report`.", required=False)
@click.option("--save", "save", type=click.Path(path_type=Path), help="Write logits and --record values as .npz.")
@click.option("--record", multiple=True, metavar="NODE", help="Keep a node's output in --save; 'all' keeps every node.")
@click.option("--events", type=click.Path(path_type=Path), help="Write every layer's events (t,c,y,x,value) here.")
@click.option("--event-format", type=click.Choice(["npz", "aer"]), default="npz", show_default=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Classes shown per image.")
@engine_options
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), help="Seconds after which a run in Lava is stopped."
)
@click.option(
    "--granularity", type=click.Choice(["block", "operator"]), help="Lava: a process per residual block or per node."
)
@image_options
@format_option
def simulate(
    network: Path,
    images: Path,
    output: Path | None,
    save: Path | None,
    record: tuple[str, ...],
    events: Path | None,
    event_format: Literal["npz", "aer"],
    top: int,
    engine: str,
    threads: int | None,
    timeout: float | None,
    granularity: str | None,
    resize: bool,
    limit: int | None,
    fmt: str,
) -> None:
    """Run a network on images: classes per image and operation counts.

    IMAGES is an image file, a folder, a .npy array or a .npz file with `images` (and `labels`).

    \b
    Example:
      qkf-deploy simulate net.int.qkf images/ --top 3
    """
    graph = api.load(network)
    given = image_files.load(images, graph, resize=resize, limit=limit)
    asked = {"threads": threads, "timeout_s": timeout, "granularity": granularity}
    options: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    wanted = _recorded(graph, record, gates=output is not None, events=events is not None)
    start_engine(engine, graph.arithmetic == "integer")
    with progress("simulating") as tick:
        run = api.simulate(graph, given.array, record=wanted, engine=engine, progress=tick, **options)
    notices(run.notices)
    show(_classes(graph, given, run, top), fmt, _below(given, run))
    if events is not None:
        note(f"wrote {write_events(run, events, event_format)}")
    if save is not None:
        _save_arrays(save, run)
    if output is not None:
        write_run(output, graph, run)
        note(f"wrote {output}")


def _recorded(graph: Graph, record: tuple[str, ...], *, gates: bool, events: bool) -> str | tuple[str, ...]:
    """Nodes to keep: those asked for, the gates for a run file, every layer of events for event files."""
    if "all" in record:
        return "all"
    layers = [n.name for n in graph if n.type.is_events and n.op.kind not in ("input", "output")] if events else []
    return tuple(dict.fromkeys([*record, *(gate_nodes(graph) if gates else ()), *layers]))


def _classes(graph: Graph, given: image_files.Images, run: Run, top: int) -> Sheet:
    count = min(top, run.logits.shape[-1])
    order = np.argsort(-run.logits, axis=-1, kind="stable")[:, :count]
    columns = [Column("image", "image", True), Column("label", "label", True)]
    for place in range(1, count + 1):
        columns += [Column(f"class_{place}", f"#{place}", True), Column(f"logit_{place}", "logit")]
    rows, shown = [], []
    for index, name in enumerate(given.names):
        label = "" if given.labels is None else _class_name(graph, int(given.labels[index]))
        row: list[str | float] = [name, label]
        for c in order[index]:
            row += [_class_name(graph, int(c)), float(run.logits[index, c])]
        rows.append(tuple(row))
        shown.append(tuple(v if isinstance(v, str) else f"{v:.3f}" for v in row))
    return Sheet("classes", tuple(columns), tuple(rows), tuple(shown))


def _class_name(graph: Graph, index: int) -> str:
    return graph.class_names[index] if index < len(graph.class_names) else str(index)


def _below(given: image_files.Images, run: Run) -> str:
    lines = []
    if given.labels is not None:
        right = int((run.logits.argmax(-1) == given.labels).sum())
        lines.append(f"accuracy: {right} of {len(given.labels)} ({100 * right / len(given.labels):.2f} %)")
    images = run.ledger.images
    counts = ", ".join(f"{name} {si(run.ledger.total(name) / images)}" for name in _SHOWN)
    lines.append(f"counts per image (mean of {images}): {counts}")
    return "\n".join(lines)


def _save_arrays(path: Path, run: Run) -> None:
    import io

    from qkf_deploy.writing import write_atomically

    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"logits": run.logits, "raw_output": run.raw_output, **run.values}
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
    emit(f"wrote {path}")
