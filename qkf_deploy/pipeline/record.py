"""What a whole run was asked for and what it made, kept in its folder: the next one does only what has changed."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from qkf_deploy.errors import InputError
from qkf_deploy.hw_models.toml_file import TomlFile, read_toml
from qkf_deploy.keywords import Keyword, as_flags, checked, keywords
from qkf_deploy.options import DataOptions, EngineOptions, ExecutionOptions, TraceOptions
from qkf_deploy.pipeline.run_options import RunOptions
from qkf_deploy.writing import write_atomically

RECORD = "run.toml"
COMMANDS = "commands.sh"
_MADE = "made.json"


@dataclass(frozen=True)
class Asked:
    """What a run is asked for; every place is absolute.

    Attributes:
        source: checkpoint, factory or float `.qkf` file.
        data: the data set.
        options: everything else.
    """

    source: str
    data: str
    options: RunOptions

    @staticmethod
    def of(source: str | Path, data: str | Path, options: RunOptions) -> Asked:
        """From paths relative to the current folder."""
        here = Path.cwd()
        paths = {k.name: getattr(options, k.name) for k in keywords(RunOptions) if Path in k.kinds}
        found: dict[str, Any] = {name: _place(here, str(path)) for name, path in paths.items() if path is not None}
        found["profiles"] = tuple(_place(here, str(name)) for name in options.profiles)
        return Asked(_place(here, str(source)), _place(here, str(data)), replace(options, **found))


@checked
def read_record(path: str | Path) -> dict[str, Any]:
    """Read what a run is asked for: the arguments of :func:`qkf_deploy.run` that it has.

    Args:
        path: of a TOML file: ``source``, ``data``, ``output``, ``profiles`` and options of `run` under their names.
            Paths are relative to its folder.

    Raises:
        ProfileError: missing or not TOML; an unknown key, or a value of another type. Names the line.
    """
    file, base = read_toml(Path(path)), Path(path).absolute().parent
    known = {keyword.name: keyword for keyword in keywords(RunOptions) if keyword.help.command_line}
    values = dict(file.check_keys("", ("source", "data"), ("output", "profiles", *known)))
    found: dict[str, Any] = {
        name: _place(base, file.text(name, values.pop(name))) for name in ("source", "data", "output") if name in values
    }
    if "output" in found:
        found["output"] = base / found["output"]
    if "profiles" in values:
        found["profiles"] = tuple(_place(base, name) for name in file.texts("profiles", values.pop("profiles")))
    for key, value in values.items():
        plain = _value(file, known[key], value)
        found[key] = _place(base, plain) if Path in known[key].kinds else plain
    return found


def _value(file: TomlFile, keyword: Keyword, value: Any) -> Any:
    """A value of a record as an option takes it."""
    kinds = {getattr(kind, "__origin__", kind) for kind in keyword.kinds}
    if isinstance(value, list):
        return tuple(_plain(v) for v in cast(list[Any], value))
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, str):
        fits = bool(keyword.choices) or str in kinds
    elif isinstance(value, dict):
        return {str(k): _plain(v) for k, v in cast(dict[Any, Any], value).items()}
    else:
        fits = isinstance(value, int | Decimal) and not kinds.isdisjoint({int, float})
    if not fits:
        raise file.error(keyword.name, f"{keyword.name} cannot be {value!r}", "see `qkf-deploy run --help`")
    return _plain(value)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _place(base: Path, text: str) -> str:
    """An absolute path of what is there, ``file.py:factory`` included; any other text as it is."""
    file, colon, rest = text.rpartition(":")
    if colon and (base / file).is_file() and not (base / text).exists():
        return f"{(base / file).resolve()}:{rest}"
    return str((base / text).resolve()) if (base / text).exists() else text


@dataclass(frozen=True)
class Record:
    """The folder of a whole run.

    Attributes:
        folder: where everything is.
        made: file name -> what it was made from, and its content, both as SHA-256.
    """

    folder: Path
    made: Mapping[str, Mapping[str, str]]

    @staticmethod
    def begin(folder: Path, asked: Asked) -> Record:
        """Write down what is asked for, and look at what is there already.

        Raises:
            InputError: a folder with files that no run made, or that cannot be written.
        """
        texts = {RECORD: _record_text(asked), COMMANDS: _commands_text(asked)}
        if not all(_is_text(text) for text in texts.values()):
            raise InputError(f"a name that is no valid text cannot stand in {RECORD}", hint="rename the file")
        if folder.exists() and not folder.is_dir():
            raise InputError("is no folder", where=str(folder), hint="give another -o")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
            raise InputError("has files that no `run` made", where=str(folder), hint="give a new or an empty folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot write here: {error.strerror}"
            raise InputError(reason, where=str(folder), hint="give another -o") from error
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
        return Record(folder, _read_made(folder / _MADE))

    def make(self, name: str, origin: str | None, write: Callable[[Path], None]) -> tuple[Record, bool]:
        """Write a file unless it is there, made from the same; whether it was written.

        Args:
            name: of the file.
            origin: digest of everything that it is made from; ``None`` where that is not known.
            write: writes it, atomically.
        """
        path = self.folder / name
        known = self.made.get(name)
        if origin and known and known["from"] == origin and path.is_file() and sha256(path) == known["content"]:
            return self, False
        write(path)
        made = {**self.made, name: {"from": origin or "", "content": sha256(path)}}
        write_atomically(self.folder / _MADE, (json.dumps(made, indent=2, sort_keys=True) + "\n").encode())
        return replace(self, made=made), True


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _read_made(path: Path) -> dict[str, dict[str, str]]:
    """What an earlier run made; nothing where that is not known."""
    try:
        found = json.loads(path.read_text())
        return {str(name): {"from": str(m["from"]), "content": str(m["content"])} for name, m in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def origin(*parts: object) -> str:
    """Digest of what something is made from; the tool's version is part of it."""
    plain = json.dumps([metadata.version("qkf-deploy"), *parts], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def network_name(bits: int | None) -> str:
    """File name of a network without its ending: ``float``, ``8bit``."""
    return "float" if bits is None else f"{bits}bit"


def _record_text(asked: Asked) -> str:
    import tomli_w

    values: dict[str, Any] = {"source": asked.source, "data": asked.data, "output": "."}
    if asked.options.profiles:
        values["profiles"] = list(asked.options.profiles)
    for keyword in keywords(RunOptions):
        value: Any = getattr(asked.options, keyword.name)
        if keyword.help.command_line and value != keyword.default:
            values[keyword.name] = dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
    head = f"# qkf-deploy {metadata.version('qkf-deploy')}; `qkf-deploy run {RECORD}` does this again.\n"
    return head + tomli_w.dumps(values)


def _commands_text(asked: Asked) -> str:
    options = asked.options
    if asked.source.endswith(".qkf"):
        lines = [["cp", asked.source, "float.qkf"]]
    else:
        given = as_flags(options, TraceOptions)
        lines = [["qkf-deploy", "trace", asked.source, "--fold", *given, "-o", "float.qkf"]]
    names = [network_name(bits) for bits in (None, *options.widths)]
    for bits, name in zip(options.widths, names[1:], strict=True):
        lines.append(["qkf-deploy", "quantize", "float.qkf", "--bits", str(bits), "-o", f"{name}.qkf"])
    shared = [word for of in (DataOptions, ExecutionOptions, EngineOptions) for word in as_flags(options, of)]
    batch = ["--batch", str(options.batch)] if options.batch is not None else []
    for name in names:
        lines.append(["qkf-deploy", "evaluate", f"{name}.qkf", asked.data, *shared, *batch, "-o", f"{name}.sqlite"])
    chips = [] if options.chip is None else [f"{name}.chip.json" for name in names[1:]]
    on_chip = [
        (["qkf-deploy", "hardware", f"{name}.qkf", f"{name}.sqlite", "--chip", str(options.chip), "--limit",
          str(options.chip_images), *as_flags(options, EngineOptions), "--format", "json"], file)
        for name, file in zip(names[1:], chips, strict=False)
    ]  # fmt: skip
    profiles = [word for name in options.profiles for word in ("--profile", name)]
    beside = [word for name in (names[0], *names[2:]) for word in ("--beside", f"{name}.sqlite")]
    shown = [word for file in chips for word in ("--hardware", file)]
    page = ["qkf-deploy", "report", f"{names[1]}.sqlite", *beside, *shown, *profiles, "-o", "report.html"]
    texts = [
        *map(shlex.join, lines), *(f"{shlex.join(words)} > {file}" for words, file in on_chip), shlex.join(page)
    ]  # fmt: skip
    return "#!/bin/sh\nset -e\n" + "".join(f"{text}\n" for text in texts)
