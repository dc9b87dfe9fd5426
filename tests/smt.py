"""What an SMT solver proves."""

from __future__ import annotations

from typing import Any

import pytest

z3 = pytest.importorskip("z3", reason="proofs by SMT need z3-solver (extra: test)")


def proven(claim: Any, *given: Any) -> None:
    """The claim holds wherever ``given`` does; else the counterexample is in the error."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*given, z3.Not(claim))
    found = solver.check()
    assert found == z3.unsat, solver.model() if found == z3.sat else found
