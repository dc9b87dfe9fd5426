"""Bits for every layer under a budget: an integer program, by HiGHS (Math. Prog. Comp. 10, 119-142, 2018) in SciPy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from qkf_deploy.errors import CheckFailed, MissingComponent, UsageError

#: Layer -> bits -> what it costs.
Costs = Mapping[str, Mapping[int, float]]


def assign(losses: Costs, costs: Costs, budget: float) -> dict[str, int]:
    """The bits of every layer with the least sum of losses whose costs stay within the budget.

    Args:
        losses: what each layer loses at each of its bits.
        costs: what it takes, with the same keys.
        budget: largest sum of costs.

    Raises:
        UsageError: the least costs are more than the budget.
        CheckFailed: the solver did not finish.
        MissingComponent: SciPy is not installed.
    """
    least = sum(min(of.values()) for of in costs.values())
    if least > budget:
        raise UsageError(f"the budget of {budget:g} is below {least:g}, the least that the layers take")
    choices = [(name, bits) for name, of in costs.items() for bits in of]
    # Tolerances of a solver are about 1e-6: budget and losses become numbers around 1, and the sum is checked after.
    unit = max(budget, 1e-300)
    worst = max((losses[n][b] for n, b in choices), default=0.0) or 1.0
    tightened = 1.0
    for _ in range(4):
        chosen = _solve(
            choices, [losses[n][b] / worst for n, b in choices], [costs[n][b] / unit for n, b in choices], tightened
        )
        if sum(costs[n][b] for n, b in chosen.items()) <= budget:
            return chosen
        tightened -= 1e-6
    raise CheckFailed("the solver's assignment passes the budget")


def _solve(
    choices: Sequence[tuple[str, int]], losses: Sequence[float], costs: Sequence[float], budget: float
) -> dict[str, int]:
    solver = _scipy()
    names = list(dict.fromkeys(name for name, _ in choices))
    once = np.array([[float(name == other) for other, _ in choices] for name in names])
    found = solver.milp(
        np.array(losses),
        integrality=np.ones(len(choices)),
        bounds=solver.Bounds(0, 1),
        constraints=[
            solver.LinearConstraint(once, 1, 1),
            solver.LinearConstraint(np.array([costs]), -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise CheckFailed(f"no assignment of bits: {found.message}")
    return {name: bits for (name, bits), taken in zip(choices, found.x, strict=True) if taken > 0.5}


def _scipy() -> ModuleType:
    try:
        return importlib.import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "scipy":
            raise
        raise MissingComponent("scipy is not installed", hint='pip install "qkf-deploy[data]"') from error
