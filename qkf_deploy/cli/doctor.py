"""`qkf-deploy doctor`."""

from __future__ import annotations

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
    from qkf_deploy.doctor import examine
    from qkf_deploy.report.formats import Column, Sheet

    findings = examine(lava=lava)
    columns = tuple(Column(key, key, True) for key in ("area", "name", "status", "detail", "hint"))
    rows = tuple((f.area, f.name, f.status, f.detail, f.hint) for f in findings)
    show(Sheet("doctor", columns, rows), fmt)
    failed = [f.name for f in findings if f.status == "failed"]
    if failed:
        raise CheckFailed(f"does not work: {', '.join(failed)}", where="doctor", hint="see the hints above")
