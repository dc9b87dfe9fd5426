"""Logits and recorded values of a run as a NumPy archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from qkf_deploy.simulators.run import Run
from qkf_deploy.writing import write_atomically


def write_arrays(path: str | Path, run: Run) -> None:
    """Write ``logits``, ``raw_output`` and every recorded value under its node's name, membranes under
    ``NODE/membrane``, of several outputs each under ``output/NAME``, as `.npz`, atomically.

    A node that is called ``logits`` or ``raw_output`` itself is numbered: ``logits#2``.

    Raises:
        InputError: the place cannot be written.
    """
    arrays = {"logits": run.logits, "raw_output": run.raw_output}
    arrays |= {f"output/{name}": value for name, value in run.named_outputs.items() if run.parts}
    recorded = {**run.values, **{f"{node}/membrane": value for node, value in run.membranes.items()}}
    for node, value in recorded.items():
        name, count = node, 1
        while name in arrays or (count > 1 and name in recorded):
            count += 1
            name = f"{node}#{count}"
        arrays[name] = value
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy.savez takes names as keywords and cannot take them all
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    write_atomically(Path(path), buffer.getvalue())
