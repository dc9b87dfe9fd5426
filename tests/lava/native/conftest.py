"""Tests that import Lava. They run in the Python 3.10 environment, without torch and numba."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]  # lava_cases, netbuild
