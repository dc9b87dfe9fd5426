"""NIR files to graphs: our own without loss, stock files of other tools by meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qkf_deploy import bundle
from qkf_deploy.converters.nir.export import SIDECAR, SIDECAR_VERSION, stock_digest
from qkf_deploy.converters.nir.flat import flatten_graphs
from qkf_deploy.converters.nir.raising import Raising
from qkf_deploy.converters.nir.safety import MAX_ARRAY, child, h5py, open_file, read_stock
from qkf_deploy.errors import InputError, QkfError
from qkf_deploy.ir import Graph


@dataclass(frozen=True)
class ImportOptions:
    """What a stock NIR file does not say.

    Attributes:
        time_steps: T.
        input_encoding: ``direct`` (one image shown T times) or ``frames``.
        dt: time step in seconds that the file's time constants were written for.
        fires: ``above`` as NIR defines a neuron, or ``at`` for files of tools that fire at the threshold itself.
        readout: take the mean over time of the output; otherwise the output stays one value per step.
        stock: ignore our own sidecar and read the stock nodes.
    """

    time_steps: int = 4
    input_encoding: Literal["direct", "frames"] = "direct"
    dt: float = 1e-4
    fires: Literal["above", "at"] = "above"
    readout: bool = True
    stock: bool = False


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
        with open_file(place) as file:
            raw = read_stock(file)
            sidecar = None if options.stock else _sidecar(file)
        if sidecar is not None:
            return sidecar
        return Raising(flatten_graphs(raw), options.dt, options.fires).graph(
            options.time_steps, options.input_encoding, options.readout
        )
    except QkfError as error:
        if error.where is None or not error.where.startswith(str(place)):
            error.where = f"{place}: {error.where}" if error.where else str(place)
        raise


def _sidecar(file: Any) -> Graph | None:
    """The graph stored beside the stock nodes, if there is one and the stock nodes are as they were."""
    try:
        group = child(file, SIDECAR, "")
        if group is None:
            return None
        if not isinstance(group, h5py.Group) or group.attrs.get("version") != SIDECAR_VERSION:
            raise InputError("a sidecar of another version", where=f"/{SIDECAR}", hint="import with --stock")
        data = child(group, "graph", f"/{SIDECAR}")
        _check_sidecar(data)
        if group.attrs.get("stock_sha256") != stock_digest(file["node"]):
            raise InputError(
                "the stock nodes were changed after the export, the sidecar was not",
                where=f"/{SIDECAR}",
                hint="import with --stock to read the stock nodes",
            )
        return bundle.from_bytes(np.asarray(data[()]).tobytes())
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UnicodeError, MemoryError) as error:
        raise InputError(f"a damaged sidecar: {type(error).__name__}: {error}", where=f"/{SIDECAR}") from error


def _check_sidecar(data: Any) -> None:
    plain = isinstance(data, h5py.Dataset) and data.dtype == np.uint8 and data.ndim == 1 and not data.is_virtual
    size = (data.size if plain else None) or 0
    if not plain or data.external or data.compression is not None or not 0 < size <= 8 * MAX_ARRAY:
        raise InputError("a sidecar that is not plain bytes", where=f"/{SIDECAR}/graph")
    if data.id.get_storage_size() < size:
        raise InputError("a sidecar that declares more than it stores", where=f"/{SIDECAR}/graph")
