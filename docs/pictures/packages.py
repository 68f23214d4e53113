"""Draws packages.svg: the packages of bothways, with an arrow from each to those that it imports.

Arrows that follow from others are left out. `python docs/pictures/packages.py` in the folder of the repository.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.test_imports import ORDER, imported, modules, room  # noqa: E402

BASE = "errors · storage · progress · options · hardware"
PLACES = {  # column and row of each package
    "cli": (2, 0),
    "serving": (0, 1),
    "jobs": (2, 2),
    "evaluation": (3, 3),
    "training": (1, 4),
    "pipelines": (0, 4),
    "inference": (1, 5),
    "render": (3, 5),
    "model": (0, 6),
    "tasks": (2, 6),
    "batch": (0, 7),
    "metrics": (2, 7),
    "data": (2, 8),
    "text": (1, 9),
    BASE: (1, 10),
}
ROLES = {
    "cli": "commands",
    "jobs": "one use case a file",
    "serving": "HTTP service, page",
    "pipelines": "calls of transformers 4",
    "training": "loop, recipes",
    "evaluation": "baseline, comparison",
    "inference": "predictor, engines",
    "render": "pages, report",
    "model": "encoder (PyTorch)",
    "tasks": "encode, decode, score",
    "batch": "windows to batches",
    "metrics": "scores, intervals",
    "data": "readers",
    "text": "tokenizer, windows",
    BASE: "",
}
WIDTH, HEIGHT, COLUMN, ROW = 170, 44, 195, 76


def box(name: str) -> str:
    """The box of a package: those that everything uses share one."""
    return name if name in PLACES else BASE


def imports() -> dict[str, set[str]]:
    """Each box and those that it imports."""
    found: dict[str, set[str]] = {}
    for path in modules():
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts[0] == "bothways" and len(parts) > 1 and parts[1] in ORDER and room(path) != "__main__":
                found.setdefault(box(room(path)), set()).add(box(parts[1]))
    return {name: others - {name} for name, others in found.items()}


def arrows() -> list[tuple[str, str]]:
    """The imports that do not follow from others."""
    direct = imports()

    def reached(name: str) -> set[str]:
        return {one for other in direct.get(name, ()) for one in {other} | reached(other)}

    return sorted(
        (name, other)
        for name, others in direct.items()
        for other in others
        if not any(other in reached(between) for between in others - {other})
    )


def drawing() -> str:
    """The picture, as SVG."""
    corners = {name: (20 + column * COLUMN, 20 + row * ROW) for name, (column, row) in PLACES.items()}
    width, height = 40 + 3 * COLUMN + WIDTH, 40 + 9 * ROW + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="15" text-anchor="middle" role="img">',
        "<title>Packages and what they import</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#5f6b76"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#f7f7f5"/>',
    ]
    for name, other in arrows():
        (x1, y1), (x2, y2) = corners[name], corners[other]
        start = x1 + WIDTH / 2
        end = start if other == BASE else x2 + WIDTH / 2
        parts.append(
            f'<path d="M{start:g} {y1 + HEIGHT}C{start:g} {y1 + HEIGHT + 26} {end:g} {y2 - 28} {end:g} {y2 - 2}" '
            'fill="none" stroke="#5f6b76" stroke-width="1.4" marker-end="url(#head)">'
            f"<title>{name} → {other}</title></path>"
        )
    for name, (x, y) in corners.items():
        middle = x + size(name) / 2
        parts.append(
            f'<rect x="{x}" y="{y}" width="{size(name)}" height="{HEIGHT}" rx="7" fill="#fff" stroke="#3f51b5"/>'
        )
        if ROLES[name]:
            parts.append(f'<text x="{middle:g}" y="{y + 19}" font-weight="600" fill="#1c2127">{name}</text>')
            parts.append(f'<text x="{middle:g}" y="{y + 36}" font-size="12" fill="#4c5660">{ROLES[name]}</text>')
        else:
            parts.append(f'<text x="{middle:g}" y="{y + 27}" font-size="14" fill="#1c2127">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def size(name: str) -> int:
    """The width of a box."""
    return WIDTH + COLUMN if name == BASE else WIDTH


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawing(), encoding="utf-8")
