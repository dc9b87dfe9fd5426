"""Networks on chips side by side, from what `hardware --format json` wrote: for pages and comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qkf_deploy.display.numbers import ratio, si
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.errors import InputError
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.limits import read_whole

#: Components with a column of their own; all others are buffers of the chip.
_OWN = ("compute", "DRAM", "network", "static")


@dataclass(frozen=True)
class HardwareView:
    """One network on one chip, of one image.

    Attributes:
        name: of the file.
        chip: id.
        cores: in use.
        energy_pj: low, nominal, high; ``None`` where nothing of the network has a place or a price.
        components: nominal energy (pJ) by component, without those the chip has no figures for.
        latency_ns, period_ns: of one image, and between images; ``None`` where nothing has a place or a time.
        left_out: what is not in the energy, and what not in the time.
        twin: energy of the dense twin over this, nominal; ``None`` where it was left out.
        break_even: firing relative to the measured one at which twin and network need the same, nominal.
    """

    name: str
    chip: str
    cores: int
    energy_pj: tuple[float, float, float] | None
    components: Mapping[str, float]
    latency_ns: float | None
    period_ns: float | None
    left_out: tuple[str, ...]
    twin: float | None
    break_even: float | None

    def part(self, name: str) -> float | None:
        """Energy of a component, or of all ``buffers``; ``None`` if it is not known."""
        if name != "buffers":
            return self.components.get(name)
        buffers = [pj for component, pj in self.components.items() if component not in _OWN]
        return sum(buffers) if buffers else None

    @property
    def edp_js(self) -> float | None:
        """Energy x delay."""
        return None if self.energy_pj is None or not self.latency_ns else self.energy_pj[1] * self.latency_ns * 1e-21


def read_view(path: str | Path) -> HardwareView:
    """What `hardware --format json` wrote.

    Raises:
        InputError: the file cannot be read, or is something else.
    """
    refuse_others(path, "hardware result")
    try:
        data = json.loads(read_whole(Path(path)), parse_constant=_no_number)
        if data["kind"] != "hardware":
            raise ValueError("kind")
        if not _number(data["images"]):
            raise ValueError("images")  # all below is per image: of none there is no mean
        components = {str(row["component"]): _number(row["nominal_energy_pj"]) for row in data["components"]}
        low, nominal, high = (
            sum(_number(row[f"{bound}_energy_pj"]) for row in data["components"])
            for bound in ("low", "nominal", "high")
        )
        even = data["break_even"]
        return HardwareView(
            Path(path).stem,
            str(data["chip"]),
            int(_number(data["cores"])),
            (low, nominal, high) if components else None,
            components,
            None if data["latency_ns"] is None else _number(data["latency_ns"]),
            None if data["period_ns"] is None else _number(data["period_ns"]),
            (*map(str, data["not_in_the_energy"]), *(f"time of {name}" for name in data["untimed"])),
            None if data["twin"] is None else _number(data["twin"]),
            None if not even or even["nominal"] is None else _number(even["nominal"], least=-math.inf),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            "no result of the hardware model",
            where=str(path),
            hint="write one with `qkf-deploy hardware --format json`",
        ) from error


def _no_number(text: str) -> float:
    raise ValueError(text)


def _number(value: Any, least: float = 0.0) -> float:
    number = float(value)
    if isinstance(value, bool | str) or not math.isfinite(number) or number < least:
        raise ValueError("number")
    return number


def _milli(pj: float) -> str:
    return f"{pj / 1e9:.4g}"


def views_sheet(views: Sequence[HardwareView]) -> Sheet:
    """One row per file."""

    def milli(name: str) -> Field[HardwareView]:
        return Field(f"{name}_pj", f"{name} mJ", lambda v: v.part(name), shown(_milli))

    def shown(text: Callable[[float], str]) -> Callable[[float | None], str]:
        return lambda value: "" if value is None else text(value)

    fields: list[Field[HardwareView]] = [
        Field("file", "file", lambda v: v.name, left=True),
        Field("chip", "chip", lambda v: v.chip, left=True),
        Field("cores", "cores", lambda v: v.cores),
        *(milli(name) for name in ("compute", "buffers", "DRAM", "network", "static")),
        Field("energy_pj", "total mJ", lambda v: v.energy_pj and v.energy_pj[1], shown(_milli)),
        Field("range", "low to high", lambda v: " to ".join(map(_milli, v.energy_pj[::2])) if v.energy_pj else ""),
        Field("latency_ns", "latency", lambda v: v.latency_ns, shown(lambda ns: si(ns / 1e9, "s"))),
        Field("images_per_second", "images/s", lambda v: 1e9 / v.period_ns if v.period_ns else None, shown(si)),
        Field("edp_js", "energy x delay", lambda v: v.edp_js, shown(lambda x: si(x, "Js"))),
        Field("twin", "dense twin", lambda v: v.twin, lambda x: "" if x is None else f"x {ratio(x)}"),
        Field("break_even", "break-even firing", lambda v: v.break_even, ratio),
    ]  # fmt: skip
    if any(view.left_out for view in views):
        fields.append(Field("left_out", "not in these figures", lambda v: "; ".join(v.left_out), left=True))
    return tabulate("On chips, one image", fields, views)
