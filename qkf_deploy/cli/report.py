"""`qkf-deploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy.cli.common import emit, output_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@output_option("The HTML file to write.")
@click.option(
    "--profile", "profiles", multiple=True, help="Price profile; repeatable. The first one is the layer table's."
)
def report(run: Path, output: Path, profiles: tuple[str, ...]) -> None:
    """Write one self-contained HTML page about a run (RUN is what `simulate -o run.json` wrote).

    \b
    Example:
      qkf-deploy report run.json -o report.html
    """
    from qkf_deploy.hw_models.profiles import load_profile
    from qkf_deploy.report.page import DEFAULT_PROFILES, write_page
    from qkf_deploy.runs.file import read_run

    loaded = [load_profile(name) for name in profiles or DEFAULT_PROFILES]
    write_page(output, read_run(run), loaded)
    emit(f"wrote {output}")
