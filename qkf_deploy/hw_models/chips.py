"""Chip files: what a core can hold, as cited TOML data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qkf_deploy.hw_models.toml_file import TomlFile, bundled_names, find_toml
from qkf_deploy.ops import OPERATORS

SCHEMA = 1
_NUMBERS = ("cores_per_chip", "neurons_per_core", "memory_per_core_bytes", "weight_bits_max", "state_bits_max")
_REQUIRED = ("schema", "id", "title", "citation", *_NUMBERS, "share_convolution_weights", "supports")
_LIMITS = ("synapses_per_core", "fan_in_max", "axons_in_per_core")
_OPTIONAL = ("url", "assumptions", "source", *_LIMITS)


@dataclass(frozen=True)
class Chip:
    """Limits of one chip; ``None`` means no limit is known.

    Attributes:
        id, title, citation, url: what and from where.
        cores_per_chip, neurons_per_core: counts.
        memory_per_core_bytes: shared by weights, membranes and thresholds.
        weight_bits_max, state_bits_max: widest weight and membrane.
        share_convolution_weights: a core stores a kernel once for all positions it holds.
        supports: operator kinds the chip can execute.
        synapses_per_core: stored weights (connections, where weights are not shared).
        fan_in_max: connections of one neuron.
        axons_in_per_core: distinct inputs of one core, over all neurons that it holds.
        assumptions: sentences printed under a mapping.
    """

    id: str
    title: str
    citation: str
    url: str
    cores_per_chip: int
    neurons_per_core: int
    memory_per_core_bytes: int
    weight_bits_max: int
    state_bits_max: int
    share_convolution_weights: bool
    supports: frozenset[str]
    synapses_per_core: int | None = None
    fan_in_max: int | None = None
    axons_in_per_core: int | None = None
    assumptions: tuple[str, ...] = ()


def chip_names() -> tuple[str, ...]:
    """Names of the built-in chips, sorted."""
    return bundled_names("chips")


def load_chip(name_or_path: str | Path) -> Chip:
    """A built-in chip by name, or a user's TOML file.

    Raises:
        UsageError: no built-in chip has this name.
        ProfileError: the file breaks the schema; names file and line.
    """
    return _chip(find_toml("chips", name_or_path, "chip", f"one of: {', '.join(chip_names())}"))


def _chip(file: TomlFile) -> Chip:
    data = file.check_keys("", _REQUIRED, _OPTIONAL)
    if data["schema"] != SCHEMA:
        raise file.error("schema", f"schema is {data['schema']!r}", f"this version reads {SCHEMA}")
    fields: dict[str, Any] = {k: file.whole(k, data[k], least=1) for k in (*_NUMBERS, *_LIMITS) if k in data}
    fields |= {k: file.text(k, data[k]) for k in ("id", "title", "citation")}
    share = data["share_convolution_weights"]
    if not isinstance(share, bool):
        raise file.error("share_convolution_weights", f"share_convolution_weights must be true or false, not {share!r}")
    return Chip(
        url=file.text("url", data["url"]) if "url" in data else "",
        share_convolution_weights=share,
        supports=_supports(file, data),
        assumptions=file.texts("assumptions", data.get("assumptions", [])),
        **fields,
    )


def _supports(file: TomlFile, data: Mapping[str, Any]) -> frozenset[str]:
    kinds = file.texts("supports", data["supports"])
    for kind in kinds:
        if kind not in OPERATORS:
            raise file.error(
                "supports", f"supports names an unknown operator {kind!r}", f"one of: {', '.join(OPERATORS)}"
            )
    return frozenset(kinds)
