"""Profiles as tables: which there are, and one with the source of every price."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.display.numbers import decimals, ratio
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.hw_models.accelerators import AcceleratorRow, accelerator_rows
from qkf_deploy.hw_models.profiles import Price, Profile
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.hw_models.quantity import Quantity
from qkf_deploy.report.formats import below, for_people, to_csv, to_json

_HEAD = ("id", "title", "citation", "url", "node_nm", "voltage_v", "precision", "regime", "evidence", "scope")
_LIST: tuple[Field[Profile], ...] = (
    Field("profile", "profile", lambda p: p.id, left=True),
    Field("title", "what", lambda p: p.title, left=True),
    Field("regime", "price regime", lambda p: p.regime, left=True),
    Field("node_nm", "nm", lambda p: p.node_nm, left=True),
    Field("voltage_v", "V", lambda p: p.voltage_v, left=True),
    Field("scope", "scope", lambda p: p.scope, left=True),
    Field("evidence", "evidence", lambda p: p.evidence, left=True),
)
_QUANTITIES: tuple[Field[Quantity], ...] = (
    Field("quantity", "quantity", lambda q: q.name, left=True),
    Field("work", "work", lambda q: ", ".join(sorted(q.work)), left=True),
    Field("counts", "counts", lambda q: q.help, left=True),
)


def list_sheet(profiles: Sequence[Profile]) -> Sheet:
    """One row per profile."""
    return tabulate("Price profiles", _LIST, profiles)


def quantity_sheet() -> Sheet:
    """Everything a profile can price."""
    return tabulate("Quantities a profile can price", _QUANTITIES, QUANTITIES.values())


_ACCELERATORS: tuple[Field[AcceleratorRow], ...] = (
    Field("accelerator", "accelerator", lambda r: r.accelerator, left=True),
    Field("network", "network", lambda r: r.network, left=True),
    Field("seconds", "time (ms)", lambda r: r.seconds, lambda s: f"{float(s) * 1e3:.4g}"),
    Field("chip_mj", "chip (mJ)", lambda r: r.chip_mj, ratio),
    Field("dram_mj", "DRAM (mJ)", lambda r: r.dram_mj, ratio),
    Field("recomputed_mj", "recomputed (mJ)", lambda r: r.recomputed_mj, decimals(3)),
    Field("published_mj", "published (mJ)", lambda r: r.energy_mj, decimals(3)),
    Field("verdict", "verdict", lambda r: "equal" if r.same else "differs", left=True),
)


def accelerator_sheet() -> Sheet:
    """Published energies of accelerators on spiking networks, recomputed."""
    return tabulate("Accelerators on spiking networks (Prosperity, HPCA 2025)", _ACCELERATORS, accelerator_rows())


def _amount(price: Price) -> str:
    if not price.tiers:
        return str(price.pj)
    word = "interpolated" if price.interpolate else "by buffer"
    return f"{word}: " + ", ".join(f"{t.pj} to {t.up_to} B" for t in price.tiers)


_PRICES: tuple[Field[Price], ...] = (
    Field("quantity", "quantity", lambda p: p.quantity, left=True),
    Field("pj", "pJ each", _amount),
    Field("original", "as in the source", lambda p: p.original, left=True),
    Field("source", "source", lambda p: p.source, left=True),
)


def price_sheet(profile: Profile) -> Sheet:
    """One row per price."""
    return tabulate(f"{profile.id}: {profile.title}", _PRICES, profile.prices.values())


def render_profile(profile: Profile, fmt: str) -> str:
    """One profile in a format of :data:`qkf_deploy.report.formats.FORMATS`."""
    sheet = price_sheet(profile)
    if fmt == "csv":
        return to_csv(sheet)
    if fmt == "json":
        head = {k: getattr(profile, k) for k in _HEAD}
        more = {"assumptions": list(profile.assumptions), "includes": sorted(profile.includes)}
        return to_json({"schema_version": 1, **head, **more, "prices": sheet.records()})
    lines = [f"{key.replace('_', ' ')}: {getattr(profile, key)}" for key in _HEAD[2:] if getattr(profile, key)]
    if profile.twin_mac_pj is not None:
        lines.append(f"MAC of the dense twin: {profile.twin_mac_pj} pJ")
    if profile.includes:
        lines.append(f"contained in the price: {', '.join(sorted(profile.includes))}")
    lines += [f"assumption: {a}" for a in profile.assumptions]
    separator = "\n\n" if fmt == "md" else "\n"
    return for_people(fmt)(sheet) + "\n" + below(fmt, separator.join(lines) + "\n")
