"""Time of a network on a mesh of cores as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qkf_deploy.display.numbers import percent, quantity, si
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.hw_models.timing.latency import Latency
from qkf_deploy.hw_models.timing.traffic import INPUT


@dataclass(frozen=True)
class _Busy:
    unit: str
    shares: tuple[float, ...]


def busy_sheet(time: Latency) -> Sheet:
    """How busy the cores of each unit are."""
    found: dict[str, list[float]] = {}
    for unit, share in zip(time.unit, time.busy.tolist(), strict=True):
        if unit != INPUT:
            found.setdefault(unit, []).append(share)
    fields: list[Field[_Busy]] = [
        Field("unit", "unit", lambda b: b.unit, left=True),
        Field("cores", "cores", lambda b: len(b.shares)),
        Field("mean_busy", "mean busy", lambda b: sum(b.shares) / len(b.shares), percent),
        Field("most_busy", "busiest core", lambda b: max(b.shares), percent),
    ]
    return tabulate("Cores on the mesh, first image", fields, [_Busy(u, tuple(s)) for u, s in found.items()])


def mesh_summary(time: Latency, included: bool = False) -> str:
    """The lines under the table; ``included``: the energy above has messages and hops of all images."""
    whole = time.latency_ns
    waits = ", ".join(f"{name} {percent(ns / whole)}" for name, ns in time.reason_ns.items())
    lines = [
        f"on the mesh, a pipeline of {quantity(len(time.step_ns), 'step')}: {si(whole / 10**9, 's')} for an image, "
        f"{si(time.images_per_second)} images/s in a stream; waiting for {waits}; "
        f"at least {si(float(time.bound_ns.sum()) / 10**9, 's')}; "
        f"messages and hops {float(time.network_pj) / 10**9:.4g} mJ "
        f"({'of this image, in' if included else 'not in'} the energy above)"
    ]
    if time.left_out:
        lines.append(f"no time in the chip file (a lower bound): {', '.join(time.left_out)}")
    return "\n".join(lines) + "\n"


def mesh_record(time: Latency) -> Mapping[str, Any]:
    """The same as data."""
    return {
        "steps": len(time.step_ns),
        "latency_ns": time.latency_ns,
        "bound_ns": float(time.bound_ns.sum()),
        "images_per_second": time.images_per_second,
        "network_energy_pj": float(time.network_pj),
        "waits_ns": dict(time.reason_ns),
        "left_out": list(time.left_out),
        "cores": busy_sheet(time).records(),
    }
