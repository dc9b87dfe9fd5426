"""Torch files in, without running anything they name.

`torch.load(weights_only=True)` refuses every class it does not know. Training scripts store a few harmless ones beside
the weights: their arguments, NumPy numbers, dictionaries with a default. Of these only ``argparse.Namespace`` is made;
for the others something inert is, so that no function of NumPy ever sees bytes of a file.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from typing import Any, BinaryIO

from qkf_deploy import limits
from qkf_deploy.converters.torch.containers import RESAVE
from qkf_deploy.errors import CheckpointError, told

REDOWNLOAD = "download or copy the file again, it looks incomplete or damaged"
_OTHER_FILE = "name a .pth, .pt or .safetensors file; if it is one, download or copy it again"


class Ignored:
    """Stands for an object beside the weights; keeps nothing of it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Nothing is restored."""


def _plain_dict(*_: object) -> dict[Any, Any]:
    """``defaultdict(factory)`` without its factory."""
    return {}


_NUMPY = tuple(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct"))
_FACTORIES = tuple(f"builtins.{name}" for name in ("dict", "float", "int", "list", "str"))
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_plain_dict, "collections.defaultdict"),
    *((Ignored, name) for name in (*_NUMPY, "numpy.dtype", "numpy.ndarray", *_FACTORIES)),
]


def unpickle(file: BinaryIO, where: str) -> object:
    """What a torch file holds: tensors on the CPU, plain containers, numbers and texts.

    Raises:
        CheckpointError: not such a file, a damaged one, or one that names code. Says which.
        InputError: an archive that unpacks to more than the memory limit.
    """
    import torch

    _check_archive(file, where)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpickling_error(error, where) from error
    except Exception as error:  # damaged bytes make torch's readers raise almost any type
        reasoned = isinstance(error, RuntimeError | EOFError)  # any other text is about torch's code, not the file
        detail = f" ({told(error)})" if reasoned else ""
        raise CheckpointError(f"is not a complete torch checkpoint{detail}", where=where, hint=REDOWNLOAD) from error


def _check_archive(file: BinaryIO, where: str) -> None:
    """A zip file says how large its members become."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        unpacked = 0  # torch's older format, or damaged: torch says so
    limits.check(unpacked, "the archive", where)
    file.seek(0)


def _unpickling_error(error: pickle.UnpicklingError, where: str) -> CheckpointError:
    # torch's own text advises weights_only=False, which this package must never pass on.
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
        return CheckpointError(
            f"holds a Python object that is not weights ({found[1]}); loading it could run code",
            where=where,
            hint=RESAVE,
        )
    cause = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
    detail = f" ({cause[1].strip()[:80]})" if cause else ""
    return CheckpointError(f"is not a torch or safetensors checkpoint{detail}", where=where, hint=_OTHER_FILE)
