"""HTML pages from templates: one file each, no outside reference, no script but our own."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Mapping
from importlib import resources
from typing import Any

from qkf_deploy.errors import MissingComponent

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
    text = {name: (folder / name).read_text(encoding="utf-8") for name in (*_TEMPLATES, "report.css", "report.js")}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, loader=jinja2.DictLoader(text)
    )
    digest = base64.b64encode(hashlib.sha256(text["report.js"].encode()).digest()).decode()
    page = environment.get_template(template).render(
        css=markupsafe.Markup(text["report.css"]),  # noqa: S704 - our own file
        js=markupsafe.Markup(text["report.js"]),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        **content,
    )
    return page.strip() + "\n"
