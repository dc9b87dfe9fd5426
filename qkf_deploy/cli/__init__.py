"""The command line: parse, call :mod:`qkf_deploy.api`, print. No logic.

Results go to stdout, progress and notices to stderr. Exit codes: 0 ok, 1 a check failed, 2 usage, 3 bad input,
4 a missing component, 5 an engine that failed or ran past its time, 70 a bug, 130 interrupted,
141 nobody reads stdout any more, 143 terminated.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping

import click

from qkf_deploy import limits
from qkf_deploy.cli.common import HELP, ClosedPipe
from qkf_deploy.cli.talk import talk_options
from qkf_deploy.errors import InputError, QkfError
from qkf_deploy.simulators import startup

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
EXIT_TERMINATED = 143

#: What to try without memory.
_SMALLER = "smaller batches (--batch-size), fewer images at a time (--limit), or a larger machine"

#: What commands are for -> command name -> where its click command is, imported when it is called or shown in its help.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Start here": {
        "demo": "qkf_deploy.cli.demo:demo",
        "run": "qkf_deploy.cli.whole:run_command",
        "doctor": "qkf_deploy.cli.doctor:doctor",
    },
    "Networks": {
        "models": "qkf_deploy.cli.models:models",
        "train": "qkf_deploy.cli.train:train",
        "finetune": "qkf_deploy.cli.finetune:finetune",
        "trace": "qkf_deploy.cli.trace:trace",
        "import": "qkf_deploy.cli.import_:import_",
        "quantize": "qkf_deploy.cli.quantize:quantize",
        "calibrate": "qkf_deploy.cli.calibrate:calibrate",
        "sensitivity": "qkf_deploy.cli.sensitivity:sensitivity",
        "inspect": "qkf_deploy.cli.inspect:inspect",
        "widths": "qkf_deploy.cli.widths:widths",
        "verify": "qkf_deploy.cli.verify:verify",
    },
    "Numbers": {
        "evaluate": "qkf_deploy.cli.evaluate:evaluate",
        "simulate": "qkf_deploy.cli.simulate:simulate",
        "energy": "qkf_deploy.cli.energy:energy",
        "profiles": "qkf_deploy.cli.profiles:profiles",
        "compare": "qkf_deploy.cli.compare:compare",
        "report": "qkf_deploy.cli.report:report",
        "paper": "qkf_deploy.cli.paper:paper",
    },
    "Deploy": {
        "export": "qkf_deploy.cli.export:export",
        "map": "qkf_deploy.cli.map:map_command",
        "hardware": "qkf_deploy.cli.hardware:hardware",
    },
}
COMMANDS: Mapping[str, str] = {name: place for commands in GROUPS.values() for name, place in commands.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        ctx.fail(f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in GROUPS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            width = formatter.width - 6 - max(len(name) for name in COMMANDS)
            with formatter.section(title):
                formatter.write_dl([(n, c.get_short_help_str(width)) for n, c in commands.items() if c is not None])


@click.group(cls=LazyGroup, context_settings={**HELP, "max_content_width": 110})
@click.version_option(package_name="qkf-deploy", prog_name="qkf-deploy")
@click.option("--debug", is_flag=True, help="Show a traceback for every error.")
@click.option("--memory", envvar="QKF_MEMORY", metavar="SIZE", help="Memory one input may take [default: 1G].")
@talk_options(hidden=False)
@click.pass_context
def group(ctx: click.Context, debug: bool, memory: str | None) -> None:
    """Spiking transformers from a trained checkpoint to exact integer networks, operation counts and energy.

    -q, -v and --rows may also stand behind the command.
    """
    ctx.obj = {"debug": debug}
    if memory is not None:
        ctx.with_resource(limits.memory_limit(memory))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and maps every outcome to an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    startup.alone = True
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages for torch; numpy asks for them by itself
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(arguments))


class _Terminated(BaseException):
    """The program was asked to end: what it was writing is removed on the way out."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    debug = "--debug" in arguments
    try:
        group.main(args=arguments, prog_name="qkf-deploy", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return error.exit_code
    except QkfError as error:
        click.echo(f"error: {error}", err=True)
        if debug:
            traceback.print_exc()
        return error.exit_code
    except _Terminated:
        return EXIT_TERMINATED
    except ClosedPipe:
        _drop_stdout()
        return EXIT_CLOSED_PIPE
    except OSError as error:
        _drop_stdout()
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {place}cannot be read or written: {error.strerror or error}", err=True)
        return InputError.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug, said so
        if limits.ran_out(error):
            click.echo(f"error: not enough memory\n  try: {_SMALLER}", err=True)
            return InputError.exit_code
        return _bug(error, debug)
    return 0


def _drop_stdout() -> None:
    """What is still buffered for a stdout that cannot be written is not tried again when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: Exception, debug: bool) -> int:
    click.echo(f"internal error: {type(error).__name__}: {error}", err=True)
    if debug:
        traceback.print_exc()
    else:
        click.echo("  try: run it again with `qkf-deploy --debug ...` and report the traceback", err=True)
    return EXIT_BUG
