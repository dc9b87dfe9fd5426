"""`qkf-deploy profiles`."""

from __future__ import annotations

import click

from qkf_deploy.cli.common import command, emit, format_option, show
from qkf_deploy.options import TableFormat


@command()
@click.argument("name", required=False)
@click.option("--quantities", is_flag=True, help="List everything a profile can put a price on.")
@format_option
def profiles(name: str | None, quantities: bool, fmt: TableFormat) -> None:
    """List price profiles, or show one (a name or a TOML file) with the citation of every price.

    \b
    Example:
      qkf-deploy profiles horowitz45-int8-acc32
    """
    from qkf_deploy.hw_models.profiles import load_profile, profile_names
    from qkf_deploy.report import profile_tables

    if quantities:
        show(profile_tables.quantity_sheet(), fmt)
    elif name is None:
        show(profile_tables.list_sheet([load_profile(n) for n in profile_names()]), fmt)
    else:
        emit(profile_tables.render_profile(load_profile(name), fmt))
