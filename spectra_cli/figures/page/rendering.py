"""One self-contained HTML page out of a document: nothing is fetched, and nothing that a file says is executed."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from spectra_cli.figures.page.data import embedded
from spectra_cli.figures.page.document import Document
from spectra_cli.figures.page.text import html, run_choices, sections

ECHARTS = "echarts/echarts.min.js"
"""Apache ECharts 6.1.0 as its npm package has it, unmodified; LICENSE and NOTICE are beside it."""

GENERATOR = '<meta name="generator" content="spectra report">'
"""Tells a page of spectra from other files."""

LICENCES = ("NOTICE", "LICENSE", "licenses/LICENSE-d3")
"""What must go wherever ECharts goes: a page is a copy of it."""

SCRIPTS = ("numbers.js", "scales.js", "figure.js", "heatmap.js", "linechart.js", "tables.js", "page.js")
"""The page's own script, in the order in which its parts build on each other."""


def render(document: Document) -> str:
    """The page as one string of HTML, to be written as UTF-8.

    The same document gives the same bytes. The page loads nothing: its Content-Security-Policy names the two scripts
    that it holds by their SHA-256, and no other source of anything.

    Args:
        document: what the page shows; its strings need no escaping.
    """
    library = _asset(ECHARTS)
    own = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"
    parts = list(sections(document))
    links = "".join(f'<li><a href="#{part.anchor}">{part.heading}</a></li>' for part in parts)
    bodies = "\n".join(
        f'<section id="{part.anchor}" aria-labelledby="{part.anchor}-heading">'
        f'<h2 id="{part.anchor}-heading">{part.heading}</h2>{part.body}</section>'
        for part in parts
    )
    return Template(_asset("page.html")).substitute(
        policy=_policy(library, own),
        generator=GENERATOR,
        style=_asset("page.css"),
        title=html(document.title),
        lead=html(document.lead),
        runs=run_choices(document),
        contents=links,
        sections=bodies,
        data=embedded(document),
        licences="\n\n".join(_asset(f"echarts/{name}") for name in LICENCES),
        library=library,
        script=own,
    )


def _asset(name: str) -> str:
    return files("spectra_cli.figures.page").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy under which these scripts run and nothing else does.

    Styles are inline, as charts and tooltips are positioned by the script; images are those that the script draws.
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
