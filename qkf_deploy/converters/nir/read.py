"""NIR files to graphs: our own without loss, stock files of other tools by meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qkf_deploy import bundle
from qkf_deploy.converters.nir.dialects import dialect_of
from qkf_deploy.converters.nir.firing import INPUT_BOUND, silent_neurons
from qkf_deploy.converters.nir.flat import FlatGraph, flatten_graphs
from qkf_deploy.converters.nir.isolated import read_isolated
from qkf_deploy.converters.nir.raising import Raising
from qkf_deploy.converters.nir.spiking import SPIKING
from qkf_deploy.converters.nir.synapses import SYNAPSES
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import QkfError
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.ir import Graph
from qkf_deploy.options import ImportOptions
from qkf_deploy.passes.widths import check

_TIME_STEPS = 4


def import_nir(path: str | Path, options: ImportOptions | None = None) -> Graph:
    """Read a NIR file.

    A file written by this package gives back its graph bit for bit, from the sidecar. A stock file is read by meaning:
    every node that has none here is listed, and what the file leaves open is decided by the options, or with a notice.

    Raises:
        InputError: missing, damaged or hostile file; stock nodes changed since the export; a time step that is open.
        ProofError: the sidecar's widths do not hold for its weights.
        UnsupportedError: nodes without a meaning here, all listed.
        UsageError: options that contradict each other.
    """
    options = options or ImportOptions()
    place = Path(path)
    refuse_others(place, "NIR file")
    try:
        content = read_isolated(place, options.stock)
        if content.stock is None:
            graph = bundle.from_bytes(b"" if content.sidecar is None else content.sidecar.tobytes())
            if graph.arithmetic == "integer":
                check(graph)
            return graph
        return _raised(flatten_graphs(content.stock, content.version), options)
    except QkfError as error:
        if error.where is None or not error.where.startswith(str(place)):
            error.where = f"{place}: {error.where}" if error.where else str(place)
        raise


def _raised(source: FlatGraph, options: ImportOptions) -> Graph:
    dialect, decided = dialect_of(source, options)
    raising = Raising(source, dialect, {**SYNAPSES, **SPIKING})
    raising.notices += [*decided, *_assumed(options)]
    steps = _TIME_STEPS if options.time_steps is None else options.time_steps
    graph = raising.graph(steps, options.input_encoding or "direct", options.readout)
    silent = silent_neurons(graph)
    if not silent:
        return graph
    names = ", ".join(silent[:4]) + (f" and {len(silent) - 4} more" if len(silent) > 4 else "")
    said = (
        f"{names} cannot fire within {quantity(steps, 'step')}, "
        f"whatever the input between -{INPUT_BOUND:g} and {INPUT_BOUND:g}: "
        "the file was written for another dt, gain or threshold, or needs more steps or larger inputs"
    )
    return replace(graph, notices=(*graph.notices, said))


def _assumed(options: ImportOptions) -> list[str]:
    assumed = []
    if options.time_steps is None:
        assumed.append(f"{_TIME_STEPS} time steps")
    if options.input_encoding is None:
        assumed.append("one image shown at every step")
    return [f"not in the file, assumed: {', '.join(assumed)}"] if assumed else []
