"""Profiles as tables: which there are, and one with the source of every price."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.hw_models.profiles import Price, Profile
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.report.formats import Column, Sheet, to_csv, to_json, to_markdown, to_text

_LIST = tuple(
    Column(key, title, True)
    for key, title in (
        ("profile", "profile"),
        ("title", "what"),
        ("regime", "price regime"),
        ("node_nm", "nm"),
        ("voltage_v", "V"),
        ("scope", "scope"),
        ("evidence", "evidence"),
    )
)
_PRICES = (
    Column("quantity", "quantity", True),
    Column("pj", "pJ each"),
    Column("original", "as in the source", True),
    Column("source", "source", True),
)
_HEAD = ("id", "title", "citation", "url", "node_nm", "voltage_v", "precision", "regime", "evidence", "scope")


def list_sheet(profiles: Sequence[Profile]) -> Sheet:
    """One row per profile."""
    rows = tuple((p.id, p.title, p.regime, p.node_nm, p.voltage_v, p.scope, p.evidence) for p in profiles)
    return Sheet("Price profiles", _LIST, rows)


def quantity_sheet() -> Sheet:
    """Everything a profile can price."""
    columns = (Column("quantity", "quantity", True), Column("work", "work", True), Column("counts", "counts", True))
    rows = tuple((q.name, ", ".join(sorted(q.work)), q.help) for q in QUANTITIES.values())
    return Sheet("Quantities a profile can price", columns, rows)


def price_sheet(profile: Profile) -> Sheet:
    """One row per price."""
    rows = tuple((p.quantity, _amount(p), p.original, p.source) for p in profile.prices.values())
    return Sheet(f"{profile.id}: {profile.title}", _PRICES, rows)


def _amount(price: Price) -> str:
    if not price.tiers:
        return str(price.pj)
    word = "interpolated" if price.interpolate else "by buffer"
    return f"{word}: " + ", ".join(f"{t.pj} to {t.up_to} B" for t in price.tiers)


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
    body = to_text(sheet) if fmt == "table" else to_markdown(sheet)
    separator = "\n" if fmt == "table" else "\n\n"
    return body + "\n" + separator.join(lines) + "\n"
