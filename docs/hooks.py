"""What building the site adds to the pages in docs/: pages from the rest of the repository, and the reference."""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {  # pages of the repository that are not in docs/, and their places on the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/index.md",
    **{f"examples/{path.name}": f"examples/{path.name}" for path in (REPOSITORY / "examples").glob("[!R]*.md")},
    **{
        f"models/{path.parent.name}/README.md": f"cards/{path.parent.name}.md"
        for path in (REPOSITORY / "models").glob("*/README.md")
    },
}
SOURCES = {site: source for source, site in PAGES.items()}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"^<!-- (?:not run: .*?|numbers vary) -->\n", re.MULTILINE)  # for the test that runs the blocks
BOX = re.compile(r"^╭─ (.+?) ─+╮$\n(.*?)^╰", re.DOTALL | re.MULTILINE)
FROM_ELSEWHERE = re.compile(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `PAGES`, and the pictures of the examples."""
    for source, site in PAGES.items():
        files.append(File.generated(config, site, content=(REPOSITORY / source).read_text(encoding="utf-8")))
    for picture in (REPOSITORY / "examples").glob("*_files/*"):
        site = picture.relative_to(REPOSITORY).as_posix()
        files.append(File.generated(config, site, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links within the repository into links within the site, and fill in the reference."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would be one line
    if page.file.src_uri == "reference/cli.md":
        markdown = markdown.replace("<!-- commands -->", commands())
    if page.file.src_uri == "reference/api.md":
        markdown = re.sub(r"<!-- (\w+) -->", lambda found: directive(found[1]), markdown)
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")
    parts = FENCE.split(MARK.sub("", markdown))
    parts[::2] = [LINK.sub(lambda found: link(found, source, place, files), part) for part in parts[::2]]
    return "".join(parts)


def link(found: re.Match[str], source: str, place: str, files: Files) -> str:
    """A link of the page `source` of the repository, which is at `place` on the site.

    What is not on the site, such as a folder of scripts, is left as its text.
    """
    mark, text, target = found.groups()
    path, hash_sign, anchor = target.partition("#")
    if not path or ":" in path:
        return found[0]
    there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    site = PAGES.get(there, there.removeprefix("docs/"))
    if files.get_file_from_path(site) is None and (REPOSITORY / there).exists():
        return text
    return f"{mark}[{text}]({posixpath.relpath(site, posixpath.dirname(place) or '.')}{hash_sign}{anchor})"


def directive(name: str) -> str:
    """The place where a public name of the package is documented from its docstring."""
    thing: Any = getattr(importlib.import_module("bothways"), name)
    options = f"    options:\n      heading: bothways.{name}\n      toc_label: {name}"
    return f"::: {thing.__module__}.{thing.__qualname__}\n{options}\n"


def commands() -> str:
    """Every command of the command line as a section with its options, read from its help."""
    names = [row[0] for row in boxes(help_of())["Commands"]]
    return "\n\n".join(section(name) for name in names)


def section(name: str) -> str:
    """The help of one command as Markdown."""
    text = help_of(name)
    usage, summary = (part.strip() for part in text.split("╭")[0].strip().split("\n", 1))
    usage = usage.removeprefix("Usage: ").replace("python -m bothways", "bothways")
    parts = [f"## {name}", summary, f"```text\n{usage}\n```"]
    for panel, rows in boxes(text).items():
        if panel == "Messages":  # the same for all
            continue
        lines = [table_row(row, argument=panel == "Arguments") for row in rows if row[0] != "--help"]
        if lines:
            head = (
                "| argument | description |" if panel == "Arguments" else f"| {panel.lower()} | values | description |"
            )
            rule = "|---" * (head.count("|") - 1) + "|"
            parts.append("\n".join([head, rule, *lines]))
    return "\n\n".join(parts)


def table_row(row: list[str], *, argument: bool) -> str:
    """One argument or option as a row of a table.

    >>> table_row(["--top-k", "<int range> [x>=1]", "Number of answers."], argument=False)
    '| `--top-k` | int ≥ 1 | Number of answers. |'
    """
    *flags, kind, text = (cell.replace("|", "\\|") for cell in row)
    names = " ".join(f"`{part}`" for flag in flags for part in re.split(r"[,\s]+", flag))
    if argument:
        return f"| {names} | {text} |"
    kind = re.sub(r" range> \[x>=(\S+)\]", r" ≥ \1", kind.replace("<bool>", "")).strip("<>")
    return f"| {names} | {kind} | {text} |"


def boxes(text: str) -> dict[str, list[list[str]]]:
    """The panels of a help text: the cells of each row."""
    found = {
        title: [re.split(r"\s{2,}", line.strip("│").lstrip(" *").rstrip()) for line in body.splitlines()]
        for title, body in BOX.findall(text)
    }
    if not found:
        raise PluginError(f"no options were found in this help text:\n{text}")
    return found


def help_of(*words: str) -> str:
    """The help of the command line, or of one command, without line breaks in a cell."""
    environment = os.environ | {"COLUMNS": "1000", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bothways", *words, "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
    )
    if done.returncode:
        raise PluginError(f"bothways {' '.join(words)} --help failed:\n{done.stderr}")
    return done.stdout


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from elsewhere: it must be readable without a network."""
    for path in Path(config.site_dir).rglob("*.html"):
        found = FROM_ELSEWHERE.search(path.read_text(encoding="utf-8"))
        if found:
            raise PluginError(f"{path.relative_to(config.site_dir)} loads from elsewhere: {found[0][:200]}")
