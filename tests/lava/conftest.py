"""The Python 3.10 environment of the Lava tests: they run if it is there, else say why not."""

from __future__ import annotations

import importlib.util
import os

import pytest

from qkf_deploy.errors import MissingComponent
from qkf_deploy.simulators.lava.environment import LavaEnvironment, find_lava


def _lava_is_here() -> bool:
    try:
        return importlib.util.find_spec("lava.magma") is not None  # not "lava", which this folder may be taken for
    except ModuleNotFoundError:
        return False


#: Tests that import Lava themselves; elsewhere `test_lava_native.py` starts them in the Lava environment.
collect_ignore = [] if _lava_is_here() else ["native"]


@pytest.fixture(scope="session")
def lava() -> LavaEnvironment:
    """A usable environment. ``REQUIRE_LAVA=1`` turns the skip into a failure."""
    try:
        return find_lava()
    except MissingComponent as error:
        if os.environ.get("REQUIRE_LAVA") == "1":
            pytest.fail(f"REQUIRE_LAVA=1, but: {error}")
        pytest.skip(str(error))
