"""Chip files: cited TOML data, every rule checked, errors name the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from qkf_deploy.hw_models.architecture.chip import (
    DATAFLOWS,
    EXECUTIONS,
    HOLDS,
    LINKS,
    OPERATIONS,
    Buffer,
    Chip,
    Core,
    LayerForm,
    Link,
    Network,
    Operation,
)
from qkf_deploy.hw_models.architecture.ranges import BOUNDS, Range
from qkf_deploy.hw_models.toml_file import TomlFile, bundled_names, find_toml
from qkf_deploy.ops import OPERATORS

SCHEMA = 2
_GUIDE = "docs/hardware.md"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_CORE_LIMITS = (
    "synapses_max", "synapse_bits_max", "fan_in_max", "axons_in_max", "axons_out_max", "destinations_max", "biases_max",
    "queue_events",
)  # fmt: skip
_FORM_NUMBERS = ("kernel_side_max", "input_side_max", "output_side_max", "channels_max", "padding_max")
_CORE_NUMBERS = ("count", "neurons_max", "weight_bits_max", "state_bits_max")


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
    data = file.check_keys(
        "",
        ("schema", "id", "title", "citation", "node_nm", "execution", "core"),
        ("url", "assumptions", "network", "buffer", "dram", "clock_mhz", "static_mw", "static_source"),
        guide=_GUIDE,
    )
    if data["schema"] != SCHEMA:
        raise file.error("schema", f"schema is {data['schema']!r}", f"this version reads {SCHEMA}")
    chip = Chip(
        **{k: file.text(k, data[k]) for k in ("id", "title", "citation")},
        url=file.text("url", data["url"]) if "url" in data else "",
        node_nm="not stated" if data["node_nm"] == "not stated" else str(file.number("node_nm", data["node_nm"])),
        execution=file.choice("execution", data["execution"], EXECUTIONS),
        cores=tuple(_core(file, name) for name in _names(file, "core", data["core"])),
        network=_network(file) if "network" in data else None,
        buffers=_buffers(file, "buffer", data.get("buffer", {})),
        dram=_buffer(file, "dram", dram=True) if "dram" in data else None,
        clock_mhz=_above_zero(file, "clock_mhz", data.get("clock_mhz")),
        static_mw=_range(file, "static_mw", data.get("static_mw")),
        static_source=file.text("static_source", data["static_source"]) if "static_source" in data else "",
        assumptions=file.texts("assumptions", data.get("assumptions", [])),
    )
    _check_whole(file, chip)
    return chip


def _check_whole(file: TomlFile, chip: Chip) -> None:
    """Rules between parts of a file."""
    for key in ("clock_mhz", "static_mw"):
        if getattr(chip, key) is not None and not chip.static_source:
            raise file.error(key, f"{key} has no citation", "add static_source")
    if chip.execution == "layer-by-layer" and chip.dram is None:
        raise file.error("execution", "a chip that works layer by layer needs [dram]: weights come from there")
    if chip.execution != "resident" and any(core.layer for core in chip.cores):
        raise file.error("execution", "cores that are one layer each keep it: execution is resident")
    if chip.network is not None:
        places = chip.network.columns * chip.network.rows * chip.network.cores_per_tile
        if places < chip.cores_per_chip:
            raise file.error("network", f"a mesh with places for {places} cores, the chip has {chip.cores_per_chip}")


def _core(file: TomlFile, kind: str) -> Core:
    key = f"core.{kind}"
    data = file.check_keys(
        key,
        (*_CORE_NUMBERS, "supports", "share_convolution_weights", "source", "buffer"),
        (*_CORE_LIMITS, "static_mw", "operation", "dataflows", "operations_include_buffers", "layer"),
        guide=_GUIDE,
    )
    numbers: dict[str, Any] = {
        k: file.whole(f"{key}.{k}", data[k], least=1) for k in (*_CORE_NUMBERS, *_CORE_LIMITS) if k in data
    }
    core = Core(
        kind=kind,
        supports=frozenset(_known(file, f"{key}.supports", data["supports"], OPERATORS, "operator")),
        share_convolution_weights=file.truth(f"{key}.share_convolution_weights", data["share_convolution_weights"]),
        source=file.text(f"{key}.source", data["source"]),
        operations=_operations(file, f"{key}.operation", data.get("operation", {})),
        buffers=_buffers(file, f"{key}.buffer", data["buffer"]),
        static_mw=_range(file, f"{key}.static_mw", data.get("static_mw")),
        dataflows=_known(file, f"{key}.dataflows", data.get("dataflows", ["event-scatter"]), DATAFLOWS, "dataflow"),
        operations_include_buffers=file.truth(
            f"{key}.operations_include_buffers", data.get("operations_include_buffers", False)
        ),
        layer=_layer(file, f"{key}.layer") if "layer" in data else None,
        **numbers,
    )
    for operand in ("weights", "state"):
        if core.buffer(operand) is None:
            raise file.error(f"{key}.buffer", f"no buffer of core {kind!r} holds {operand}")
    return core


def _layer(file: TomlFile, key: str) -> LayerForm:
    data = file.check_keys(key, (*_FORM_NUMBERS, "strides", "pools"), (), guide=_GUIDE)
    numbers = {k: file.whole(f"{key}.{k}", data[k], least=k != "padding_max") for k in _FORM_NUMBERS}
    for name in ("strides", "pools"):
        if not isinstance(data[name], list) or not data[name]:
            raise file.error(f"{key}.{name}", f"{name} must be a list of whole numbers")
    lists = ([file.whole(f"{key}.{name}", n, least=1) for n in data[name]] for name in ("strides", "pools"))
    strides, pools = map(tuple, lists)
    return LayerForm(**numbers, strides=strides, pools=pools)


def _operations(file: TomlFile, key: str, table: Any) -> dict[str, Operation]:
    found = {}
    for name in _names(file, key, table, empty=True):
        if name not in OPERATIONS:
            raise file.error(f"{key}.{name}", f"no core does {name!r}", _close(name, OPERATIONS))
        place = f"{key}.{name}"
        data = file.check_keys(place, ("source",), ("pj", "lanes", "ns"), guide=_GUIDE)
        lanes = file.whole(f"{place}.lanes", data["lanes"], least=1) if "lanes" in data else None
        found[name] = Operation(
            _range(file, f"{place}.pj", data.get("pj")),
            1 if lanes is None and "ns" in data else lanes,
            file.number(f"{place}.ns", data["ns"]) if "ns" in data else None,
            file.text(f"{place}.source", data["source"]),
        )
    return found


def _buffers(file: TomlFile, key: str, table: Any) -> tuple[Buffer, ...]:
    buffers = tuple(_buffer(file, f"{key}.{name}") for name in _names(file, key, table, empty=key == "buffer"))
    taken: dict[str, str] = {}
    for buffer in buffers:
        for operand in sorted(buffer.holds):
            if operand in taken:
                raise file.error(f"{key}.{buffer.name}", f"{taken[operand]} and {buffer.name} both hold {operand}")
            taken[operand] = buffer.name
    return buffers


def _buffer(file: TomlFile, key: str, *, dram: bool = False) -> Buffer:
    always = ("word_bits", "source") if dram else ("word_bits", "source", "bytes", "holds")
    data = file.check_keys(key, always, ("read_pj", "write_pj", "leakage_mw", "bits_per_ns"), guide=_GUIDE)
    holds = HOLDS if dram else _known(file, f"{key}.holds", data["holds"], HOLDS, "operand")
    return Buffer(
        name="DRAM" if dram else key.rpartition(".")[2],
        holds=frozenset(holds),
        bytes=None if dram else file.whole(f"{key}.bytes", data["bytes"], least=1),
        word_bits=file.whole(f"{key}.word_bits", data["word_bits"], least=1),
        read_pj=_range(file, f"{key}.read_pj", data.get("read_pj")),
        write_pj=_range(file, f"{key}.write_pj", data.get("write_pj")),
        leakage_mw=_range(file, f"{key}.leakage_mw", data.get("leakage_mw")),
        bits_per_ns=_above_zero(file, f"{key}.bits_per_ns", data.get("bits_per_ns")),
        source=file.text(f"{key}.source", data["source"]),
    )


def _network(file: TomlFile) -> Network:
    data = file.check_keys(
        "network",
        ("columns", "rows", "cores_per_tile", "multicast", "source"),
        ("message_bits", "queue_messages", "barrier_ns", "link"),
        guide=_GUIDE,
    )
    optional = {
        k: file.whole(f"network.{k}", data[k], least=1) if k in data else None
        for k in ("message_bits", "queue_messages")
    }
    links = {name: _link(file, name) for name in _names(file, "network.link", data.get("link", {}), empty=True)}
    for name, link in links.items():
        if link.per == "bit" and optional["message_bits"] is None:
            raise file.error(f"network.link.{name}", "a price per bit needs network.message_bits")
    return Network(
        *(file.whole(f"network.{k}", data[k], least=1) for k in ("columns", "rows", "cores_per_tile")),
        multicast=file.truth("network.multicast", data["multicast"]),
        barrier_ns=_barrier(file, data.get("barrier_ns", [])),
        source=file.text("network.source", data["source"]),
        links=links,
        **optional,
    )


def _barrier(file: TomlFile, value: Any) -> tuple[Decimal, ...]:
    key = "network.barrier_ns"
    return tuple(file.number(key, v) for v in (value if isinstance(value, list) else [value]))


def _link(file: TomlFile, name: str) -> Link:
    key = f"network.link.{name}"
    if name not in LINKS:
        raise file.error(key, f"no link is called {name!r}", _close(name, LINKS))
    data = file.check_keys(key, ("per", "source"), ("pj", "ns"), guide=_GUIDE)
    return Link(
        _range(file, f"{key}.pj", data.get("pj")),
        file.number(f"{key}.ns", data["ns"]) if "ns" in data else None,
        file.choice(f"{key}.per", data["per"], ("message", "bit")),
        file.text(f"{key}.source", data["source"]),
    )


def _range(file: TomlFile, key: str, value: Any) -> Range | None:
    """A number, or a table of low, nominal and high."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return Range.of(file.number(key, value))
    if set(value) != set(BOUNDS):
        raise file.error(key, f"{key} must be a number, or a range {{ low, nominal, high }}")
    found = Range(*(file.number(key, value[bound]) for bound in BOUNDS))
    if not found.low <= found.nominal <= found.high:
        raise file.error(key, f"{key}: low <= nominal <= high does not hold: {', '.join(map(str, found))}")
    return found


def _above_zero(file: TomlFile, key: str, value: Any) -> Decimal | None:
    if value is None:
        return None
    number = file.number(key, value)
    if not number:
        raise file.error(key, f"{key} must be above zero")
    return number


def _names(file: TomlFile, key: str, table: Any, *, empty: bool = False) -> Iterable[str]:
    if not isinstance(table, Mapping) or not (table or empty):
        raise file.error(key, f"{key} must be tables such as [{key}.name]")
    for name in table:
        if not _NAME.fullmatch(name):
            raise file.error(f"{key}.{name}", f"{name!r} is no name", "letters, digits, - and _")
    return table


def _known(file: TomlFile, key: str, value: Any, allowed: Collection[str], what: str) -> tuple[str, ...]:
    names = file.texts(key, value)
    for name in names:
        if name not in allowed:
            last = key.rpartition(".")[2]
            raise file.error(key, f"{last} names an unknown {what} {name!r}", f"one of: {', '.join(allowed)}")
    return names


def _close(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(known)}"
