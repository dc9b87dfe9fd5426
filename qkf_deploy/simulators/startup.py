"""How numba is imported where nobody else uses it."""

from __future__ import annotations

import importlib
import importlib.util
import sys

#: True in a process that runs nobody else's kernels, such as the command line's.
alone = False


def import_numba() -> None:
    """Load numba; alone in the process, without the BLAS it looks for in scipy.

    Kernels of this package call none, and importing scipy takes a sixth of the start.
    """
    if not alone or "scipy" in sys.modules or importlib.util.find_spec("numba") is None:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment] # makes the import fail, as if scipy were not installed
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules["scipy"]
