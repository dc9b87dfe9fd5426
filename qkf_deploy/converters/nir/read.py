"""NIR files to graphs: our own without loss, stock files of other tools by meaning."""

from __future__ import annotations

from pathlib import Path

from qkf_deploy import bundle
from qkf_deploy.converters.nir.flat import flatten_graphs
from qkf_deploy.converters.nir.isolated import read_isolated
from qkf_deploy.converters.nir.raising import Raising
from qkf_deploy.errors import QkfError
from qkf_deploy.ir import Graph
from qkf_deploy.options import ImportOptions


def import_nir(path: str | Path, options: ImportOptions | None = None) -> Graph:
    """Read a NIR file.

    A file written by this package gives back its graph bit for bit, from the sidecar. A stock file is read by meaning:
    every node that has none here is listed.

    Raises:
        InputError: missing, damaged or hostile file; stock nodes changed since the export.
        UnsupportedError: nodes without a meaning here, all listed.
    """
    options = options or ImportOptions()
    place = Path(path)
    try:
        content = read_isolated(place, options.stock)
        if content.stock is None:
            return bundle.from_bytes(b"" if content.sidecar is None else content.sidecar.tobytes())
        return Raising(flatten_graphs(content.stock), options.dt, options.fires).graph(
            options.time_steps, options.input_encoding, options.readout
        )
    except QkfError as error:
        if error.where is None or not error.where.startswith(str(place)):
            error.where = f"{place}: {error.where}" if error.where else str(place)
        raise
