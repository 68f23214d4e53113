"""Make the notebook and the page of each example from its script, with the outputs of a new run.

    python examples/render.py                  all of them
    python examples/render.py news_entities    one

NAME.py, a script in jupytext's percent format, is the source. NAME.ipynb has the same cells and their outputs, NAME.md
is the notebook as a page, and NAME_files/ holds its pictures.
"""

from __future__ import annotations

import io
import os
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
NAMES = ("movie_reviews", "learning_curve", "news_entities")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# A page without a window frame, and without the fonts from the network that rich's own format names.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
text {{ font: {char_height}px/{line_height}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>
<g transform="translate({terminal_x}, 10)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g>{matrix}</g>
</g>
</svg>
"""


def notebook(name: str, folder: Path = HERE) -> NotebookNode:
    """The cells of a script, without outputs; the same script gives the same notebook."""
    made = jupytext.read(folder / f"{name}.py")
    made.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return made


def execute(made: NotebookNode, folder: Path, **parameters: Any) -> NotebookNode:
    """A copy of a notebook with the outputs of a run in `folder`; the first cell that fails raises.

    `parameters` are set at the end of the cell with the tag "parameters", in this run alone: the cells of the copy are
    those of the notebook.
    """
    run = deepcopy(made)
    for cell in run.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    # OMP_NUM_THREADS is what the tests set for their tiny models.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        run,
        kernel_name="python3",
        timeout=None,
        resources=where,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # no warning that the kernel listens on a local port
    )
    client.execute(env=environment)
    for cell, source in zip(run.cells, made.cells, strict=False):
        cell.source = source.source
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/plain" in data:  # the address of an object, which is another one in each run
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
    run.metadata = deepcopy(made.metadata)
    return run


def page(run: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """An executed notebook as Markdown, and the pictures that it shows, by their paths.

    Output in the colors of a terminal becomes a picture, as Markdown has no colors; a frame with another page, which
    it cannot show, is left out.
    """
    from nbconvert import MarkdownExporter

    drawn = deepcopy(run)
    for number, cell in enumerate(drawn.cells):
        outputs = []
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = output.get("text") or data.get("text/plain", "")
            if "\x1b[" in text:
                picture = {"image/svg+xml": terminal_picture(text, f"{name}-{number}")}
                output = nbformat.v4.new_output("display_data", picture)
            if "<iframe" not in data.get("text/html", "") and text.strip():
                outputs.append(output)
        if "outputs" in cell:
            cell.outputs = outputs
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, resources = MarkdownExporter().from_notebook_node(drawn, resources=resources)
    return text, resources["outputs"]


def terminal_picture(text: str, name: str) -> str:
    """An SVG picture of what a terminal shows."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME
    from rich.text import Text

    shown = Text.from_ansi(text.rstrip("\n") + "\n")  # rich clips the last line away, so that one is empty
    width = max(line.cell_len for line in shown.split())
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, force_jupyter=False)
    console.print(shown)
    drawn = console.export_svg(theme=DEFAULT_TERMINAL_THEME, code_format=SVG, unique_id=name)
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


def main(names: list[str]) -> None:
    """Run the examples and write their notebooks, pages and pictures."""
    for name in names or NAMES:
        run = execute(notebook(name), HERE)
        nbformat.write(run, HERE / f"{name}.ipynb")
        text, pictures = page(run, name)
        for old in HERE.glob(f"{name}_files/{name}_*"):
            old.unlink()
        (HERE / f"{name}.md").write_text(text, encoding="utf-8")
        for path, content in pictures.items():
            (HERE / path).parent.mkdir(exist_ok=True)
            (HERE / path).write_bytes(content)
        print(f"{name}: notebook, page and {len(pictures)} pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
