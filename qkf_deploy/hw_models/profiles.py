"""Energy profiles: prices as cited data, one TOML file each.

A profile says what it prices, in which technology, on whose evidence. Built-in ones lie in ``profiles/``; a user's own
file is read the same way.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.hw_models.quantity import MEMORY_WORK, WORK
from qkf_deploy.hw_models.toml_file import TomlFile, bundled_names, find_toml

SCHEMA = 1
EVIDENCE = ("measured", "simulated", "table", "assumption")
SCOPES = ("per-term", "all-in")
_REQUIRED = (
    "schema", "id", "title", "citation", "node_nm", "voltage_v", "precision", "regime", "evidence", "scope", "price",
)  # fmt: skip
_OPTIONAL = ("url", "assumptions", "includes", "twin", "view", "virtual_steps", "low_without")
#: Smallest step of a price: one attojoule. Prices are finite decimals, so counts x prices is exact.
PRICE_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class Tier:
    """Price of a buffer of at most ``up_to`` bytes."""

    up_to: int
    pj: Decimal


@dataclass(frozen=True)
class Price:
    """Price of one quantity.

    Attributes:
        quantity: key of :data:`qkf_deploy.hw_models.quantities.QUANTITIES`.
        pj: picojoule per operation (per byte for memory classes); the last tier's where ``tiers`` is given.
        source: citation, with table or section.
        original: the figure as the source gives it.
        tiers: prices by size of the buffer that holds the layer's weights or state, ascending.
        interpolate: between tiers, linearly in bytes, rounded to :data:`PRICE_STEP`; else the next larger tier.
    """

    quantity: str
    pj: Decimal
    source: str
    original: str = ""
    tiers: tuple[Tier, ...] = ()
    interpolate: bool = False

    def at(self, size: int) -> Decimal:
        """Price for a buffer of ``size`` bytes; beyond the largest tier its price (banks of that size)."""
        for index, tier in enumerate(self.tiers):
            if size > tier.up_to:
                continue
            if not self.interpolate or index == 0:
                return tier.pj
            below = self.tiers[index - 1]
            share = Decimal(size - below.up_to) / Decimal(tier.up_to - below.up_to)
            return (below.pj + share * (tier.pj - below.pj)).quantize(PRICE_STEP)
        return self.tiers[-1].pj if self.tiers else self.pj


@dataclass(frozen=True)
class Profile:
    """Prices with where they come from.

    Attributes:
        id, title: name and one line.
        citation, url: source of the convention or chip.
        node_nm, voltage_v: technology, or ``not stated``.
        precision: of the operands the prices are for.
        regime: word that must agree before two profiles are compared as like with like (``fp32``, ``int8``, ...).
        evidence: ``measured`` silicon, ``simulated`` before silicon, ``table`` of operation energies, ``assumption``.
        scope: ``per-term`` prices add up; an ``all-in`` price contains memory and control already.
        prices: by quantity.
        assumptions: sentences printed under every result.
        includes: work an all-in price contains.
        twin_mac_pj: MAC price of the dense twin, ``None`` if the profile has none.
        view: ``hardware`` for prices, ``convention`` for counting as some published tool or paper does.
        low_without: quantities that the source's lower bound leaves out; none where it gives one figure, no range.
        virtual_steps: published rates are means of integers that stand for up to D spikes, so they may exceed 1.
    """

    id: str
    title: str
    citation: str
    node_nm: str
    voltage_v: str
    precision: str
    regime: str
    evidence: str
    scope: str
    prices: Mapping[str, Price]
    assumptions: tuple[str, ...] = ()
    includes: frozenset[str] = frozenset()
    twin_mac_pj: Decimal | None = None
    url: str = ""
    view: str = "hardware"
    virtual_steps: bool = False
    low_without: frozenset[str] = frozenset()

    @property
    def accounted(self) -> frozenset[str]:
        """Work that has a price or is contained in one."""
        return self.includes.union(*(QUANTITIES[q].work for q in self.prices))

    def with_first_layer(self, repeated: bool) -> Profile:
        """The same prices with a constant first layer computed at every time step, or once per image.

        Raises:
            UsageError: the profile has no price for real-valued input in both forms.
        """
        for once, every in _FIRST_LAYER:
            have, want = (once, every) if repeated else (every, once)
            if want in self.prices:
                return self
            if have in self.prices:
                price = replace(self.prices[have], quantity=want)
                prices = {want if q == have else q: price if q == have else p for q, p in self.prices.items()}
                return replace(self, prices=prices)
        raise UsageError(
            f"profile {self.id} has no price for a first layer that reads real values", hint="leave --first-layer out"
        )


#: Quantities of real-valued input: an input constant over time once, and the same at every step.
_FIRST_LAYER = tuple((name, f"{name}_every_step") for name in ("mac_dense", "mac", "mac_nonzero"))

_LIST_PROFILES = "`qkf-deploy profiles` lists them; a file must end in .toml"


def profile_names() -> tuple[str, ...]:
    """Names of the built-in profiles, sorted."""
    return bundled_names("profiles")


def load_profile(name_or_path: str | Path) -> Profile:
    """A built-in profile by name, or a user's file (anything that ends in ``.toml`` or names a file).

    Raises:
        UsageError: no built-in profile has this name.
        ProfileError: the file breaks the schema; names file and line.
    """
    return _profile(find_toml("profiles", name_or_path, "energy profile", _LIST_PROFILES))


def _profile(file: TomlFile) -> Profile:
    data = file.check_keys("", _REQUIRED, _OPTIONAL)
    if data["schema"] != SCHEMA:
        raise file.error("schema", f"schema is {data['schema']!r}", f"this version reads {SCHEMA}")
    text = {k: file.text(k, data[k]) for k in ("id", "title", "citation", "precision", "regime")}
    prices = _prices(file, data["price"])
    profile = Profile(
        **text,
        node_nm=_technology(file, "node_nm", data["node_nm"]),
        voltage_v=_technology(file, "voltage_v", data["voltage_v"]),
        evidence=file.choice("evidence", data["evidence"], EVIDENCE),
        scope=file.choice("scope", data["scope"], SCOPES),
        prices=prices,
        assumptions=file.texts("assumptions", data.get("assumptions", [])),
        includes=_includes(file, data),
        twin_mac_pj=_twin(file, data, prices),
        url=file.text("url", data["url"]) if "url" in data else "",
        view=file.choice("view", data.get("view", "hardware"), ("hardware", "convention")),
        low_without=_low_without(file, data, prices),
        virtual_steps=file.truth("virtual_steps", data.get("virtual_steps", False)),
    )
    _check_once(file, profile)
    return profile


def _technology(file: TomlFile, key: str, value: Any) -> str:
    if value == "not stated":
        return value
    return str(file.number(key, value))


def _prices(file: TomlFile, table: Any) -> dict[str, Price]:
    if not isinstance(table, Mapping) or not table:
        raise file.error("price", "no prices", "add a table such as [price.ac_unary]")
    return {name: _price(file, name) for name in table}


def _price(file: TomlFile, name: str) -> Price:
    key = f"price.{name}"
    if name not in QUANTITIES:
        close = difflib.get_close_matches(name, QUANTITIES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`qkf-deploy profiles --quantities` lists what has a price"
        raise file.error(key, f"nothing is counted under the name {name!r}", hint)
    values = file.check_keys(key, ("source",), ("pj", "original", "tiers", "interpolate"))
    if ("pj" in values) == ("tiers" in values):
        raise file.error(key, f"[{key}] needs either pj or tiers", "the unit is picojoule: pj = 0.9")
    tiers = _tiers(file, key, values["tiers"]) if "tiers" in values else ()
    if tiers and QUANTITIES[name].buffer is None:
        sized = ", ".join(q.name for q in QUANTITIES.values() if q.buffer)
        raise file.error(f"{key}.tiers", f"{name} has no buffer, so no price by its size", f"only {sized} have")
    return Price(
        quantity=name,
        pj=tiers[-1].pj if tiers else file.number(f"{key}.pj", values["pj"]),
        source=file.text(f"{key}.source", values["source"]),
        original=file.text(f"{key}.original", values["original"]) if "original" in values else "",
        tiers=tiers,
        interpolate=file.truth(f"{key}.interpolate", values.get("interpolate", False)),
    )


def _tiers(file: TomlFile, key: str, rows: Any) -> tuple[Tier, ...]:
    place = f"{key}.tiers"
    if not isinstance(rows, list) or not rows:
        raise file.error(place, "tiers must be a list of {up_to_bytes, pj} tables")
    tiers = []
    for row in rows:
        if not isinstance(row, Mapping) or set(row) != {"up_to_bytes", "pj"}:
            raise file.error(place, f"a tier has up_to_bytes and pj, not {row!r}")
        tiers.append(Tier(file.whole(place, row["up_to_bytes"]), file.number(place, row["pj"])))
    if any(a.up_to >= b.up_to for a, b in itertools.pairwise(tiers)):
        raise file.error(place, "tiers must grow in up_to_bytes")
    return tuple(tiers)


def _includes(file: TomlFile, data: Mapping[str, Any]) -> frozenset[str]:
    names = file.texts("includes", data.get("includes", []))
    for name in names:
        if name not in WORK:
            raise file.error("includes", f"includes names unknown work {name!r}", f"one of: {', '.join(WORK)}")
    if names and data["scope"] != "all-in":
        raise file.error("includes", "only an all-in price includes other work", 'set scope = "all-in" or price it')
    return frozenset(names)


def _low_without(file: TomlFile, data: Mapping[str, Any], prices: Mapping[str, Price]) -> frozenset[str]:
    names = frozenset(file.texts("low_without", data.get("low_without", [])))
    for name in names - set(prices):
        raise file.error("low_without", f"{name!r} has no price here", f"one of: {', '.join(prices)}")
    return names


def _twin(file: TomlFile, data: Mapping[str, Any], prices: Mapping[str, Price]) -> Decimal | None:
    if "twin" in data:
        values = file.check_keys("twin", ("mac_pj", "source"))
        file.text("twin.source", values["source"])
        return file.number("twin.mac_pj", values["mac_pj"])
    for name, price in prices.items():
        if "synapse.real" in QUANTITIES[name].work:
            return price.pj
    return None


def _check_once(file: TomlFile, profile: Profile) -> None:
    priced: dict[str, str] = {}
    for name in profile.prices:
        for work in QUANTITIES[name].work:
            if work in priced:
                raise file.error(f"price.{name}", f"{name} and {priced[work]} price the same work ({work})", "keep one")
            if work in profile.includes:
                raise file.error(f"price.{name}", f"{name} is priced and also listed under includes")
            if profile.scope == "all-in" and work in MEMORY_WORK:
                raise file.error(f"price.{name}", f"{name}: memory is never added to an all-in price")
            priced[work] = name
