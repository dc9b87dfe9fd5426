"""`qkf-deploy profiles`."""

from __future__ import annotations

import click

from qkf_deploy.cli.common import command, emit, format_option, show
from qkf_deploy.errors import UsageError
from qkf_deploy.options import TableFormat


@command()
@click.argument("name", required=False)
@click.option("--quantities", is_flag=True, help="List everything a profile can put a price on.")
@click.option(
    "--accelerators", is_flag=True, help="Published energies of accelerators on spiking networks, recomputed."
)
@format_option
def profiles(name: str | None, quantities: bool, accelerators: bool, fmt: TableFormat) -> None:
    """List price profiles, or show one (a name or a TOML file) with the citation of every price.

    \b
    Example:
      qkf-deploy profiles horowitz45-int8-acc32
    """
    from qkf_deploy.hw_models.profiles import load_profile, profile_names
    from qkf_deploy.report import profile_tables

    if quantities + accelerators + (name is not None) > 1:
        raise UsageError("NAME, --quantities and --accelerators are different tables", hint="ask for one of them")
    if accelerators:
        show(profile_tables.accelerator_sheet(), fmt)
    elif quantities:
        show(profile_tables.quantity_sheet(), fmt)
    elif name is None:
        show(profile_tables.list_sheet([load_profile(n) for n in profile_names()]), fmt)
    else:
        emit(profile_tables.render_profile(load_profile(name), fmt))
