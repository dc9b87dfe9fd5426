"""Logits and recorded values of a run as a NumPy archive."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.simulators.run import Run
from qkf_deploy.writing import write_atomically


def write_arrays(path: str | Path, run: Run) -> None:
    """Write ``logits``, ``raw_output`` and every recorded value under its node's name as `.npz`, atomically.

    Raises:
        InputError: the place cannot be written.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"logits": run.logits, "raw_output": run.raw_output, **run.values}
    np.savez_compressed(buffer, **arrays)
    write_atomically(Path(path), buffer.getvalue())
