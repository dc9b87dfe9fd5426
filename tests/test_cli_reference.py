"""docs/cli.md says what the commands say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from qkf_deploy.cli import COMMANDS, group

ROOT = Path(__file__).parents[1]


def test_the_reference_is_current() -> None:
    for name in COMMANDS:  # whoever asks a command for its options first
        found = group.get_command(click.Context(group), name)
        assert found is not None
        found.get_help(found.make_context(name, [], resilient_parsing=True))
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == module.reference(), "run `python tools/cli_reference.py`"
