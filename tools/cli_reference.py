"""Writes docs/cli.md from the commands themselves: `python tools/cli_reference.py`. A test keeps it current."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy.cli import COMMANDS, group

DOCS = Path(__file__).parents[1] / "docs" / "cli.md"
_WIDTH = 100
_INTRODUCTION = """# Command line

Made by `python tools/cli_reference.py` from the commands themselves; a test keeps it current.

Results go to stdout; progress, notices and errors to stderr. `--format json` and `csv` carry every digit, `table`, `md`
and `latex` are for people. An error is one sentence that names the place, and `try:` with the next step.

| exit code | meaning |
|--:|:--|
| 0 | done |
| 1 | a comparison or check that was asked for did not hold |
| 2 | usage: options that contradict each other, or name something that does not exist |
| 3 | bad input: a file, checkpoint, image or network that cannot be used; nothing is left half-written |
| 4 | a component that is not installed; the message says what installs it |
| 5 | an engine in another process failed or ran past its time |
| 70 | a bug; `qkf-deploy --debug ...` shows the traceback |
| 130 | interrupted |

Shell completion of commands and options: `eval "$(_QKF_DEPLOY_COMPLETE=bash_source qkf-deploy)"` in `~/.bashrc`;
`zsh_source` and `fish_source` for those shells. `python -m qkf_deploy` is the same as `qkf-deploy`.
"""


def reference() -> str:
    """The whole page."""
    settings = {**group.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    parent = click.Context(group, info_name="qkf-deploy", **settings)
    parts = [_INTRODUCTION, _section("qkf-deploy", group, parent)]
    for name in COMMANDS:
        command = group.get_command(parent, name)
        if command is not None:
            context = click.Context(
                command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
            )
            parts.append(_section(f"qkf-deploy {name}", command, context))
    return "\n".join(parts)


def _section(title: str, command: click.Command, context: click.Context) -> str:
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    DOCS.write_text(reference())
