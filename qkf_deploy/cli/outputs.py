"""Commands that write: every output is checked before any work, and nothing that exists is destroyed by accident."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from qkf_deploy.cli.talk import talk_parameters
from qkf_deploy.errors import InputError, UsageError


class Place(click.Path):
    """Type of an argument or option that is a path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A path; a text with a null byte names no file."""
        if "\0" in str(value):
            self.fail("no name of a file: it has a null byte", param, ctx)
        return super().convert(value, param, ctx)


class Output(Place):
    """Type of an option that names a file, or a new folder, to be written."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__()
        self.folder = folder


class Command(click.Command):
    """A command whose outputs are checked first; where it has some, ``--force`` lets it replace files."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += talk_parameters(hidden=True)
        if any(isinstance(p.type, Output) and not p.type.folder for p in self.params):
            force = click.Option(["--force"], is_flag=True, expose_value=False, callback=_keep, help=_FORCE)
            self.params.append(force)

    def invoke(self, ctx: click.Context) -> Any:
        """Check, then run.

        Raises:
            UsageError: an output that is an input, or two outputs in one place.
            InputError: an output that exists (files: without ``--force``), or cannot be written.
        """
        _check(ctx)
        return super().invoke(ctx)


_FORCE = "Replace output files that exist."


def _keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta["qkf_deploy.force"] = value


def _check(ctx: click.Context) -> None:
    from qkf_deploy.writing import check_file, check_folder

    places: dict[Path, str] = {}
    inputs = {_identity(path): path for path in _inputs(ctx)}
    for param in ctx.command.params:
        path = ctx.params.get(param.name or "")
        if not isinstance(param.type, Output) or path is None:
            continue
        flag = param.opts[0]
        if path.exists() and _identity(path) in inputs:
            raise UsageError(f"{flag} {path} would replace an input", hint="give another place")
        if (other := places.setdefault(path.resolve(), flag)) != flag:
            raise UsageError(f"{other} and {flag} are the same place: {path}", hint="give two")
        if param.type.folder or path.is_dir():
            check_folder(path)
            continue
        check_file(path)
        if path.exists() and not ctx.meta["qkf_deploy.force"]:
            raise InputError("exists already", where=str(path), hint="--force replaces it, or give another place")


def _inputs(ctx: click.Context) -> Iterator[Path]:
    """Files that any other argument or option names, ``file.py:factory`` included."""
    for param in ctx.command.params:
        given = ctx.params.get(param.name or "")
        if isinstance(param.type, Output):
            continue
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, str | Path):
                yield from _files(str(value))


def _files(text: str) -> Iterator[Path]:
    for name in {text, text.rpartition(":")[0]} - {""}:
        try:
            if Path(name).is_file():
                yield Path(name)
        except (OSError, ValueError):  # no name of a file: too long, or with a null byte
            continue


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
