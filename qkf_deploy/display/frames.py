"""Data frames: the only place that loads pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from qkf_deploy.errors import MissingComponent

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["DataFrame", "data_frame"]


def data_frame(records: Iterable[Mapping[str, Any]], columns: Sequence[str], **attributes: Any) -> DataFrame:
    """Records as a pandas frame, every column of one type.

    Args:
        records: rows by column name; a missing or ``None`` entry is a missing value.
        columns: names in order, those of an empty frame too.
        **attributes: facts about the whole, kept in ``DataFrame.attrs``.

    Returns:
        Integers stay integers (``int64``; ``Int64`` where some are missing; Python integers beyond 64 bits); exact
        decimals and fractions become ``float64``.

    Raises:
        MissingComponent: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingComponent("pandas is not installed", hint="pip install 'qkf-deploy[notebook]'") from error
    rows = list(records)
    frame = pd.DataFrame(
        {name: _series(pd, [row.get(name) for row in rows]) for name in columns}, columns=list(columns)
    )
    frame.attrs.update(attributes)
    return frame


def _series(pd: Any, values: Sequence[Any]) -> Any:
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, int) and not isinstance(v, bool) for v in present):
        if any(abs(v) >= 2**63 for v in present):
            return pd.Series(values, dtype="object")
        return pd.Series(values, dtype="int64" if len(present) == len(values) else "Int64")
    if present and all(isinstance(v, int | float | Decimal | Fraction) and not isinstance(v, bool) for v in present):
        return pd.Series([None if v is None else float(v) for v in values], dtype="float64")
    return pd.Series(values, dtype="object")
