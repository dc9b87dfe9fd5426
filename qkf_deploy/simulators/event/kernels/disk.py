"""Compiled kernels on disk: damage is noticed before anything of it runs; what cannot be stored is compiled again."""

from __future__ import annotations

import hashlib
import logging
import pickle
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

_logger = logging.getLogger(__name__.rpartition(".")[0])
_DIGEST = hashlib.sha256().digest_size


class CheckedFiles(IndexDataCacheFile):
    """The index and data files of one kernel, each behind a SHA-256 of its content.

    numba unpickles and runs what it finds. A file that was cut, altered, or written by another process under the same
    name for another signature counts as absent here: the kernel is compiled again and the file is replaced.
    """

    def load(self, key: Any) -> Any:
        found = super().load(key)
        return found[1] if found is not None and found[0] == key else None

    def save(self, key: Any, data: Any) -> None:
        try:
            super().save(key, (key, data))
        except OSError as error:
            not_stored(error.strerror or str(error))

    def _save_index(self, overloads: dict[Any, str]) -> None:
        with self._open_for_write(self._index_path) as file:
            file.write(self._dump((self._version, self._source_stamp, overloads)))

    def _load_index(self) -> dict[Any, str]:
        version, stamp, overloads = _read(Path(self._index_path)) or (None, None, {})
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _load_data(self, name: str) -> Any:
        return _read(Path(self._data_path(name)))

    def _dump(self, obj: Any) -> bytes:
        content = super()._dump(obj)
        return hashlib.sha256(content).digest() + content


def _read(path: Path) -> Any:
    """What was written, or ``None``."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[_DIGEST:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST]:
        return None
    return pickle.loads(content)  # noqa: S301 - written by this user's own compiler, and whole


@cache
def not_stored(reason: str) -> None:
    """Say once that kernels are compiled anew in every process."""
    _logger.warning("compiled kernels cannot be stored (%s): they are compiled again each time", reason)
