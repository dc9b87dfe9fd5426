"""`qkf-deploy doctor`."""

from __future__ import annotations

from operator import attrgetter

import click

from qkf_deploy.cli.common import command, format_option, show
from qkf_deploy.errors import CheckFailed
from qkf_deploy.options import TableFormat


@command()
@click.option("--lava/--no-lava", default=True, help="Try the Lava engine too (starts it, a few seconds).")
@format_option
def doctor(lava: bool, fmt: TableFormat) -> None:
    """Show what is installed and whether every engine that is here gives the same integers.

    Ends with exit code 1 if something that is installed does not work; optional parts may be missing.

    \b
    Example:
      qkf-deploy doctor
    """
    from qkf_deploy.display.tables import Field, tabulate
    from qkf_deploy.doctor import Finding, examine

    findings = examine(lava=lava)
    columns: list[Field[Finding]] = [
        Field(key, key, attrgetter(key), left=True) for key in ("area", "name", "status", "detail", "hint")
    ]
    show(tabulate("doctor", columns, findings), fmt)
    failed = [f.name for f in findings if f.status == "failed"]
    if failed:
        raise CheckFailed(f"does not work: {', '.join(failed)}", where="doctor", hint="see the hints above")
