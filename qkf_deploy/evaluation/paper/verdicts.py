"""A verdict on every number that the paper prints: recomputed, contradicted with evidence, or why it cannot be."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib import resources
from typing import TYPE_CHECKING

from qkf_deploy.evaluation.paper import energies, memory, parameters

if TYPE_CHECKING:
    from qkf_deploy.evaluation.paper.spiking import SpikingCost

RECOMPUTED = "recomputed"
CONTRADICTED = "contradicted"
NEEDS_WEIGHTS = "needs the released weights"
NEEDS_MACHINE = "needs the authors' machine"
SETTING = "setting"
#: What can be said of a printed number. A setting (T, image size, a name) is a choice that recomputation uses.
VERDICTS = (RECOMPUTED, CONTRADICTED, NEEDS_WEIGHTS, NEEDS_MACHINE, SETTING)

_SETTINGS = ("method", "type", "image_size", "time_steps", "dataset")
Cost = Callable[..., "SpikingCost"]


@dataclass(frozen=True)
class Printed:
    """One number of a table."""

    table: str
    row: str
    column: str
    value: str


@dataclass(frozen=True)
class Verdict:
    """What is said about it.

    Attributes:
        printed: the number.
        verdict: one of :data:`VERDICTS`.
        found: what was computed instead, as text; empty where nothing was.
        evidence: how, or why not.
    """

    printed: Printed
    verdict: str
    found: str = ""
    evidence: str = ""


def printed_numbers() -> tuple[Printed, ...]:
    """Every number of the paper's tables, in order."""
    text = (resources.files("qkf_deploy.evaluation.paper") / "printed.csv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        Printed(**{("value" if k == "printed" else k): v for k, v in row.items()}) for row in csv.DictReader(lines)
    )


def verdicts(numbers: Iterable[Printed], cost: Cost) -> tuple[Verdict, ...]:
    """One verdict for each.

    Args:
        numbers: of the tables.
        cost: parameters and MACs of a QKFormer build, :func:`qkf_deploy.evaluation.paper.spiking.spiking_cost`.

    Raises:
        KeyError: a column that no rule knows.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    numbers = tuple(numbers)
    for number in numbers:
        rows.setdefault((number.table, number.row), {})[number.column] = number.value
    return tuple(_verdict(n, rows[n.table, n.row], cost) for n in numbers)


def _verdict(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    if number.column in _SETTINGS:
        return Verdict(number, SETTING)
    return _RULES[number.column](number, row, cost)


def _accuracy(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    return Verdict(number, NEEDS_WEIGHTS, evidence="accuracy of a trained network")


def _seconds(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    return Verdict(number, NEEDS_MACHINE, evidence="seconds on the authors' GPU")


def _rate(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    return Verdict(number, NEEDS_WEIGHTS, evidence="firing rate of the trained ImageNet network")


def _parameters(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    count, note = parameters.count(number.table, number.row, number.column, cost)
    if count is None:
        return Verdict(number, NEEDS_WEIGHTS, evidence=note)
    same = Decimal(number.value) in _forms(Decimal(count) / 10**6, number.value)
    found = f"{count:,}"
    return Verdict(number, RECOMPUTED if same else CONTRADICTED, found, note or f"{found} parameters")


def _forms(millions: Decimal, printed: str) -> set[Decimal]:
    """A number cut and rounded to two decimals, and rounded to one where the printed one may be."""
    cent, tenth = Decimal("0.01"), Decimal("0.1")
    forms = {millions.quantize(cent, ROUND_DOWN), millions.quantize(cent, ROUND_HALF_UP)}
    return forms | ({millions.quantize(tenth, ROUND_HALF_UP)} if printed.endswith("0") else set())


def _energy(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    found = energies.of_row(number.row, Decimal(number.value), cost)
    verdict = {True: RECOMPUTED, False: CONTRADICTED, None: NEEDS_WEIGHTS}[found.same]
    return Verdict(number, verdict, found.text, found.evidence)


def _memory(number: Printed, row: Mapping[str, str], cost: Cost) -> Verdict:
    found, same, evidence = memory.of_cell(number.row, number.column, row)
    return Verdict(number, RECOMPUTED if same else CONTRADICTED, found, evidence)


_RULES: Mapping[str, Callable[[Printed, Mapping[str, str], Cost], Verdict]] = {
    **dict.fromkeys(("top1", "cifar100_top1", "cifar10dvs_top1"), _accuracy),
    **dict.fromkeys(("parameters_m", "cifar100_parameters_m", "cifar10dvs_parameters_m"), _parameters),
    **dict.fromkeys(("training_s", "inference_s"), _seconds),
    **dict.fromkeys(("stage1", "stage2"), _rate),
    **dict.fromkeys(("qkta_mib", "ssa_mib", "ratio"), _memory),
    "power_mj": _energy,
}
