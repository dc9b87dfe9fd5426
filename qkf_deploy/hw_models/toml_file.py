"""TOML data files (profiles, chips) whose errors name the line.

Numbers with a decimal point are read as :class:`decimal.Decimal`, never as binary floats.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from qkf_deploy import limits
from qkf_deploy.errors import InputError, ProfileError, UsageError
from qkf_deploy.filekinds import refuse_others

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1_000_000
#: A line with a key of many parts takes the parser time that grows with their square.
_MAX_LINE = 4_000
#: Bounds that keep every sum of counts x prices exact.
_LARGEST, _DECIMALS = 10**9, 12
_UNITS = ("j", "mj", "uj", "nj", "fj", "aj", "ev", "wh", "kwh", "mw", "w")
_HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")
_TRIPLE = re.compile(r'"""|\'\'\'')


@dataclass(frozen=True)
class TomlFile:
    """Parsed data with the line of every key.

    Attributes:
        path: shown in errors.
        data: the tables.
        lines: dotted key or table name -> first line, counted from 1; entries of table arrays are ``name[0]`` ...
    """

    path: str
    data: Mapping[str, Any]
    lines: Mapping[str, int]

    def error(self, key: str, message: str, hint: str | None = None) -> ProfileError:
        """An error that names file and line of a key (or of its table, where the key itself is missing)."""
        known = key
        while known and known not in self.lines:
            known = known.rpartition(".")[0]
        return ProfileError(message, where=f"{self.path}:{self.lines.get(known, 1)}", hint=hint)

    def check_keys(
        self,
        table: str,
        required: Collection[str],
        optional: Collection[str] = (),
        *,
        guide: str = "docs/profiles.md",
    ) -> Mapping[str, Any]:
        """The table, which must have exactly these keys; ``guide`` is the page that explains them.

        Raises:
            ProfileError: a key is missing or unknown; names the line and the nearest known key.
        """
        values = self._table(table)
        known = [*required, *optional]
        prefix = f"{table}." if table else ""
        for key in values:
            if key not in known:
                what = "unknown unit" if key.lower() in _UNITS else "unknown key"
                raise self.error(f"{prefix}{key}", f"{what} {key!r}", _nearest(key, known))
        missing = [key for key in required if key not in values]
        if missing:
            place = f" in [{table}]" if table else ""
            raise self.error(table, f"missing{place}: {', '.join(missing)}", f"see {guide} for every field")
        return values

    def _table(self, table: str) -> Mapping[str, Any]:
        values: Any = self.data
        for part in filter(None, table.split(".")):
            name, _, index = part.partition("[")
            values = values[name] if not index else values[name][int(index[:-1])]
        if not isinstance(values, Mapping):
            raise self.error(table, f"{table!r} must be a table")
        return values

    def text(self, key: str, value: Any) -> str:
        """A non-empty string, else ProfileError."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"{key} must be a non-empty string, not {value!r}")
        return value.strip()

    def number(self, key: str, value: Any) -> Decimal:
        """A finite number that is not negative, within the bounds of exact sums, else ProfileError."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self.error(key, f"{key} must be a number, not {value!r}")
        exact = Decimal(value)
        if not exact.is_finite() or exact < 0:
            raise self.error(key, f"{key} must be a finite number, zero or above, not {value}")
        exponent = exact.as_tuple().exponent
        if exact > _LARGEST or (isinstance(exponent, int) and exponent < -_DECIMALS):
            raise self.error(key, f"{key} must be at most 1e9 with at most {_DECIMALS} decimals, not {value}")
        return exact

    def whole(self, key: str, value: Any, *, least: int = 0) -> int:
        """A whole number of at least ``least``, else ProfileError."""
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"{key} must be a whole number of at least {least}, not {value!r}")
        return value

    def truth(self, key: str, value: Any) -> bool:
        """True or false, else ProfileError."""
        if not isinstance(value, bool):
            raise self.error(key, f"{key} must be true or false, not {value!r}")
        return value

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        """A list of strings, else ProfileError."""
        if not isinstance(value, list):
            raise self.error(key, f"{key} must be a list of strings")
        return tuple(self.text(key, v) for v in value)

    def choice(self, key: str, value: Any, allowed: Collection[str]) -> str:
        """One of the allowed words, else ProfileError."""
        if value not in allowed:
            raise self.error(key, f"{key} is {value!r}", f"one of: {', '.join(allowed)}")
        return str(value)


def read_toml(path: Path) -> TomlFile:
    """Read a TOML file.

    Raises:
        ProfileError: missing, too large, not UTF-8, not TOML (duplicate keys are not TOML); names the line.
    """
    refuse_others(path, "TOML file", ProfileError)
    try:
        content = limits.read_whole(path)
        if len(content) > _MAX_BYTES:
            raise ProfileError(f"larger than {_MAX_BYTES} bytes", where=str(path))
        text = content.decode("utf-8")
    except InputError as error:
        raise ProfileError(error.message, where=error.where, hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise ProfileError("is not UTF-8 text", where=str(path), hint="TOML files are UTF-8") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, path: str) -> TomlFile:
    """As :func:`read_toml`, from text."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _MAX_LINE:
            raise ProfileError(f"a line of {len(line)} characters, at most {_MAX_LINE}", where=f"{path}:{number}")
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:  # more than the parser's own: numbers of 5,000 digits
        message, line = _decode_problem(str(error))
        raise ProfileError(message, where=f"{path}:{line}", hint="TOML allows each key once per table") from error
    return TomlFile(path, data, _key_lines(text))


def _decode_problem(text: str) -> tuple[str, str]:
    """(what, line) of a decoder message such as ``Cannot overwrite a value (at line 3, column 5)``."""
    found = re.search(r"^(.*?)\s*\(at (?:line (\d+)|end of document).*\)$", text)
    if not found:
        return f"not TOML: {text}", "1"
    what = "a key is given twice" if "overwrite" in found[1].lower() else f"not TOML: {found[1]}"
    return what, found[2] or "end"


def _key_lines(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    table, arrays, inside = "", dict[str, int](), False
    for number, line in enumerate(text.splitlines(), 1):
        if inside or _TRIPLE.search(line):
            inside ^= len(_TRIPLE.findall(line)) % 2 == 1
            if inside and (key := _KEY.match(line)):
                lines.setdefault(_join(table, key[1]), number)
            continue
        if header := _HEADER.match(line):
            table = _plain(header[1])
            if line.lstrip().startswith("[["):
                arrays[table] = arrays.get(table, -1) + 1
                table = f"{table}[{arrays[table]}]"
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(_join(table, key[1]), number)
    return lines


def _join(table: str, key: str) -> str:
    return f"{table}.{_plain(key)}" if table else _plain(key)


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _nearest(key: str, known: Collection[str]) -> str:
    if key.lower() in _UNITS and "pj" in known:
        return "the only unit is picojoule: pj = 0.9"
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def bundled_names(folder: str) -> tuple[str, ...]:
    """Names of the TOML files that come with the package in a folder beside this module, sorted."""
    files = (resources.files("qkf_deploy.hw_models") / folder).iterdir()
    return tuple(sorted(f.name[: -len(".toml")] for f in files if f.name.endswith(".toml")))


def find_toml(folder: str, name_or_path: str | Path, what: str, otherwise: str) -> TomlFile:
    """A bundled file by name, or a user's file (anything that ends in ``.toml`` or names a file).

    Args:
        folder: of the bundled files.
        name_or_path: what the user gave.
        what: what such a file is called in the error.
        otherwise: hint where no bundled name is close.

    Raises:
        UsageError: no bundled file has this name.
        ProfileError: the file cannot be read or is not TOML.
    """
    text, names = str(name_or_path), bundled_names(folder)
    if text in names:
        source = resources.files("qkf_deploy.hw_models") / folder / f"{text}.toml"
        return parse_toml(source.read_text(encoding="utf-8"), f"{text}.toml")
    if text.endswith(".toml") or Path(text).is_file():
        return read_toml(Path(text))
    close = difflib.get_close_matches(text, names, n=1)
    raise UsageError(f"no {what} {text!r}", hint=f"did you mean {close[0]!r}?" if close else otherwise)
