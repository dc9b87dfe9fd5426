"""What an evaluation prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qkf_deploy.display.tables import Cell, Field, Sheet, tabulate
from qkf_deploy.report.formats import below, check_format, for_people, to_csv, to_json
from qkf_deploy.report.tables import SCHEMA_VERSION
from qkf_deploy.statistics.comparison_tables import conventions_sheet, differences_sheet, sides_sheet
from qkf_deploy.statistics.summary_tables import (
    CONFUSIONS,
    class_sheet,
    confusion_sheet,
    layer_sheet,
    lines,
    totals_sheet,
)

if TYPE_CHECKING:
    from qkf_deploy.options import TableFormat
    from qkf_deploy.statistics.comparison import RunComparison
    from qkf_deploy.statistics.summary import Evaluation


def evaluation_sheets(evaluation: Evaluation) -> list[Sheet]:
    """Totals, classes, wrong answers and layers as people read them; those that have rows."""
    sheets = (
        totals_sheet(evaluation),
        class_sheet(evaluation, every=False),
        confusion_sheet(evaluation, CONFUSIONS),
        layer_sheet(evaluation, every=False),
    )
    return [sheet for sheet in sheets if sheet.rows]


def render_evaluation(evaluation: Evaluation, fmt: TableFormat = "table") -> str:
    """An evaluation as text ending with a newline.

    Args:
        evaluation: of :func:`qkf_deploy.summarize`.
        fmt: ``table`` and ``md`` for people; ``json``; ``csv``, one row per number: what it is of, its standard
            deviation over images and its 95 % interval.

    Raises:
        UsageError: an unknown format.
    """
    check_format(fmt)
    if fmt == "json":
        return to_json({"schema_version": SCHEMA_VERSION, "kind": "evaluation", **evaluation.to_dict()})
    if fmt == "csv":
        return to_csv(tabulate("evaluation", _LONG, list(_long(evaluation))))
    return drawn(evaluation_sheets(evaluation), evaluation.sentences, fmt)


def comparison_sheets(comparison: RunComparison) -> list[Sheet]:
    """The runs, their differences from the first, and their energies where there are several profiles."""
    sheets = [sides_sheet(comparison.sides, comparison.profile), differences_sheet(comparison)]
    return [sheet for sheet in (*sheets, conventions_sheet(comparison)) if sheet.rows]


def render_comparison(comparison: RunComparison, fmt: TableFormat = "table") -> str:
    """Runs side by side as text ending with a newline.

    Args:
        comparison: of :func:`qkf_deploy.compare_runs`.
        fmt: ``table`` and ``md`` for people; ``json``; ``csv``, one row per run with its differences from the first,
            or one per run and profile where there are several.

    Raises:
        UsageError: an unknown format.
    """
    check_format(fmt)
    if fmt == "json":
        return to_json({"schema_version": SCHEMA_VERSION, "kind": "run-comparison", **comparison.to_dict()})
    if fmt == "csv" and comparison.conventions:
        return to_csv(conventions_sheet(comparison))
    if fmt == "csv":
        return to_csv(_joined(sides_sheet(comparison.sides, comparison.profile), differences_sheet(comparison)))
    return drawn(comparison_sheets(comparison), comparison.sentences, fmt)


def _joined(sides: Sheet, differences: Sheet) -> Sheet:
    """The differences beside the runs; the first run has none."""
    empty = (None,) * (len(differences.columns) - 1)
    beside = [empty, *(row[1:] for row in differences.rows)]
    rows = tuple((*side, *rest) for side, rest in zip(sides.rows, beside, strict=True))
    return Sheet("", (*sides.columns, *differences.columns[1:]), rows)


def drawn(sheets: Sequence[Sheet], sentences: Sequence[str], fmt: TableFormat) -> str:
    """Tables for people, and what to know of them first; for LaTeX below, a file begins with the packages it needs."""
    tables = [for_people(fmt)(sheet) for sheet in sheets]
    said = "".join(f"- {sentence}\n" for sentence in sentences)
    notes = [below(fmt, said)] if said else []
    return "\n".join([*tables, *notes] if fmt == "latex" else [*notes, *tables])


@dataclass(frozen=True)
class _Number:
    """One row of the CSV form: a number, and what it is of."""

    part: str
    name: str
    answer: str
    quantity: str
    value: Cell
    sd: Cell = None
    low: Cell = None
    high: Cell = None
    samples: Cell = None


_LONG: tuple[Field[_Number], ...] = tuple(
    Field(key, key, lambda row, key=key: getattr(row, key))
    for key in ("part", "name", "answer", "quantity", "value", "sd", "low", "high", "samples")
)


def _long(evaluation: Evaluation) -> Iterator[_Number]:
    for line in lines(evaluation):
        yield _Number("total", line.profile, "", line.key, line.value, line.sd, line.low, line.high, line.samples)
    for row in class_sheet(evaluation).records():
        accuracy = (row["accuracy"], None, row["low"], row["high"], row["samples"])
        yield _Number("class", str(row["class"]), "", "accuracy_top1", *accuracy)
    for row in confusion_sheet(evaluation).records():
        yield _Number("confusion", str(row["class"]), str(row["answer"]), "samples", row["samples"])
    for row in layer_sheet(evaluation).records():
        for key in ("firing_rate_in", "firing_rate_out", "sops_per_image", "energy_per_image_pj"):
            if row[key] is not None:
                yield _Number("layer", str(row["layer"]), "", key, row[key], row[f"{key}_sd"])
