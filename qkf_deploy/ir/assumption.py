"""What a network's source does not hold and what was taken in its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Assumption:
    """One value that was neither in the file nor given.

    Attributes:
        name: what it is: ``heads``, ``T``, ``image size``, ``mean/std`` ...
        value: as text.
        source: why this value and no other.
        affects: what is wrong in the network if the value is.
        option: of `qkf-deploy trace`, to give it; empty where there is none.
    """

    name: str
    value: str
    source: str
    affects: str
    option: str = ""


def lines(assumptions: Iterable[Assumption]) -> tuple[str, ...]:
    """The block for people: one line per source, then the options to give instead; nothing if nothing was assumed."""
    groups: dict[str, list[str]] = {}
    for a in assumptions:
        groups.setdefault(a.source, []).append(f"{a.name} {a.value}")
    if not groups:
        return ()
    texts = [f"{', '.join(values)} ({source})" for source, values in groups.items()]
    options = ", ".join(dict.fromkeys(a.option for a in assumptions if a.option))
    wrong = f"if one is wrong, give {options}" if options else "if one is wrong, trace the model's own code"
    return (f"not in the file, assumed: {texts[0]}", *(f"  {text}" for text in texts[1:]), f"  {wrong}")
