"""Sphinx's settings: the site is the repository's own Markdown files, where they lie, so that their links hold."""

import posixpath
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
START = "docs/README"

project = "GBDX tasks"
html_title = project
html_theme = "furo"
extensions = ["myst_parser"]
root_doc = START
include_patterns = [
    "README.md",
    "docs/**.md",
    "*/README.md",
    "base-images/*/README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
]
exclude_patterns = [
    "docs/_site",
    ".*_cache",
    "**/.*_cache",
    "**/.venv",
    ".git",
    ".venv",
    "runs",
    "gbdx-platform/.venv",
    "ci/tests",
]

# Headings have the anchors that the forge gives them. A link that leads nowhere is a warning, and warnings are errors.
myst_heading_anchors = 4
nitpicky = True
highlight_language = "text"
html_copy_source = False
html_show_sourcelink = False
pygments_style = "tango"
html_theme_options = {
    "footer_icons": [],
    "light_css_variables": {"color-brand-primary": "#0b5c6b", "color-brand-content": "#0b5c6b"},
}


def sections(text):
    """{section of docs/README.md: [(title, page), ...]}, as its lists have them."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, _, body = section.partition("\n")
        links = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", body, re.MULTILINE)
        found[caption] = [(title, posixpath.normpath(f"docs/{target}")) for title, target in links]
    return found


def add_navigation(app, page, source):
    """Gives the start page its navigation, which is written once: as the lists that the page shows.

    A page that is in no list, such as the README of a new task, comes last under its own title.
    """
    if page != START:
        return
    navigation = sections(source[0])
    listed = {START}.union(*({target for _, target in links} for links in navigation.values()))
    entries = {caption: [f"{title} </{target}>" for title, target in links] for caption, links in navigation.items()}
    entries["Further"] = [f"/{target}" for target in sorted(app.env.found_docs - listed)]
    for caption, lines in entries.items():
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```", ""])


def lead_to_start(app, error):
    """The site's folder opens at the start page."""
    if error is None:
        target = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={START}.html">\n'
        Path(app.outdir, "index.html").write_text(target, encoding="utf-8")


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", lead_to_start)
