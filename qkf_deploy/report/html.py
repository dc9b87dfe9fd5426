"""HTML pages from templates: one file each, no outside reference, no script but our own."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from qkf_deploy.errors import MissingComponent

_CHARTS = ("d3.min.js", "plot.umd.min.js")
_NEEDS = {
    "report.html.j2": (*_CHARTS, "cytoscape.min.js", "cytoscape-dagre.min.js"),
    "sweep.html.j2": _CHARTS,
}
"""The libraries of each page."""
_SCRIPTS = {"report.html.j2": ("report.js", "charts.js", "graph.js"), "sweep.html.j2": ("report.js", "charts.js")}
_TEMPLATES = ("base.html.j2", "macros.html.j2", "report.html.j2", "sweep.html.j2")


def check_installed() -> None:
    """Raises MissingComponent where pages cannot be written."""
    if importlib.util.find_spec("jinja2") is None:
        raise MissingComponent("jinja2 is not installed", hint="pip install 'qkf-deploy[report]'")


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page as text; the same content gives the same text.

    Args:
        template: one of our templates.
        content: what it shows; every text is escaped.

    Raises:
        MissingComponent: jinja2 is not installed.
    """
    check_installed()
    import jinja2
    import markupsafe

    folder = resources.files("qkf_deploy.report") / "templates"
    text = {name: (folder / name).read_text(encoding="utf-8") for name in (*_TEMPLATES, "report.css")}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, loader=jinja2.DictLoader(text)
    )
    used = [lib for lib in libraries() if lib["file"] in _NEEDS[template]]
    own = [(folder / name).read_text(encoding="utf-8") for name in _SCRIPTS[template]]
    scripts = [*(_with_notice(lib) for lib in used), *own]
    page = environment.get_template(template).render(
        css=markupsafe.Markup(text["report.css"]),  # noqa: S704 - our own file
        scripts=[markupsafe.Markup(script) for script in scripts],  # noqa: S704 - our own files
        script_hashes=[_hash(script) for script in scripts],
        libraries=used,
        **content,
    )
    return page.strip() + "\n"


def libraries() -> list[dict[str, str]]:
    """The libraries that pages carry: file, package, version, licence, where it is from, hashes, notice."""
    text = (resources.files("qkf_deploy.report") / "vendor" / "vendor.json").read_text(encoding="utf-8")
    return [{str(k): str(v) for k, v in library.items()} for library in json.loads(text)]


def _with_notice(library: Mapping[str, str]) -> str:
    """A library's code after its licence."""
    code = (resources.files("qkf_deploy.report") / "vendor" / library["file"]).read_bytes().decode()
    return f"/*! {library['package']} {library['version']}\n{library['notice']}*/\n{code}"


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
