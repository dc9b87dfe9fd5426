"""Tests that import Lava. They run in the Python 3.10 environment, without torch and numba."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lava_cases
