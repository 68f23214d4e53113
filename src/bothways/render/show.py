"""Render predictions: entities colored in the text, answers marked in the passage, scores as bars.

The output is one HTML page without scripts or network access, or text for a terminal.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from bothways.progress import printable
from bothways.tasks.picture import Mark, Picture

LONG = 3000  # characters; of a longer text with marks, only their surroundings are shown
AROUND = 200
BEGINNING = 1000  # characters shown of a long text without marks
MAX_BARS = 10
# Six of Okabe and Ito's colors, which are distinct for the color-blind, and four more; for light and dark pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8a100", "#56b4e9", "#e69f00", "#7a5cc9", "#8c564b", "#5d7183")
_TERMINAL = ("blue", "red", "green", "magenta", "yellow", "cyan")

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --page: #f7f7f5; --card: #fff; --ink: #1d2125; --muted: #59626c; --line: #dfe2e6; --accent: #1f6f8b;
  --marker: #ffe98a; color-scheme: light dark; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #131619; --card: #1b1f23; --ink: #e4e7ea; --muted: #a3adb7;
  --line: #343b42; --accent: #6cb8d6; --marker: #6b5900; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 3rem 1.25rem; max-width: 56rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }}
h1 {{ margin: 0; font-size: 1.9rem; font-weight: 650; line-height: 1.2; overflow-wrap: anywhere; }}
article {{ margin-top: 1rem; padding: 1.1rem 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }}
p {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }}
h2, .note, footer {{ margin: .4rem 0 0; color: var(--muted); font-size: .875rem; font-weight: 400; }}
h2:first-child {{ margin-top: 0; }}
.error {{ color: #c0392b; }}
mark {{ padding: .1em .3em; border-radius: 4px; color: inherit; background: var(--marker);
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }}
mark b {{ margin-inline-start: .4em; font-size: .7em; font-weight: 650; letter-spacing: .02em; white-space: nowrap;
  user-select: none; }}
mark[class] {{ background: color-mix(in srgb, var(--hue) 22%, var(--card)); box-shadow: inset 0 -2px var(--hue); }}
{classes}
dl {{ display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content; gap: .15rem .9rem;
  margin: .8rem 0 0; align-items: center; font-variant-numeric: tabular-nums; }}
dt {{ overflow-wrap: anywhere; max-width: 18rem; }}
dd {{ margin: 0; text-align: end; }}
i {{ display: block; height: .7rem; min-width: 1px; border-radius: 3px; background: var(--accent); }}
footer {{ margin-top: 1.5rem; }}
footer mark {{ margin-inline-end: .5em; }}
@media (max-width: 40rem) {{ body {{ padding: 1.25rem .75rem; }} article {{ padding: .9rem 1rem; }} }}
@media print {{ body {{ padding: 0; max-width: none; }} article {{ break-inside: avoid; }}
  mark, i {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
"""


def html_page(title: str, pictures: Iterable[Picture]) -> Iterator[str]:
    """Yield one self-contained page in parts; labels get their colors in order of appearance."""
    classes = "\n".join(f".c{number} {{ --hue: {color}; }}" for number, color in enumerate(COLOURS))
    yield _HEAD.format(title=escape(printable(title)), classes=classes)
    labels: dict[str, int] = {}
    for picture in pictures:
        yield "".join(_article(picture, labels))
    legend = "".join(f'<mark class="c{number}">{escape(printable(label))}</mark>' for label, number in labels.items())
    yield f"<footer>{legend}</footer>\n</body>\n</html>\n"


def _article(picture: Picture, labels: dict[str, int]) -> Iterator[str]:
    yield "<article>\n"
    for number, (caption, text) in enumerate(picture.texts, start=1):
        if caption:
            yield f"<h2>{escape(printable(caption))}</h2>\n"
        marks = picture.marks if number == len(picture.texts) else ()
        parts = []
        for piece, mark in _parts(text, marks):
            inside = escape(printable(piece))
            if mark is None:
                parts.append(inside)
            elif mark.label:
                color = labels.setdefault(mark.label, len(labels) % len(COLOURS))
                label = escape(printable(mark.label))
                parts.append(
                    f'<mark dir="auto" class="c{color}" title="{mark.score:.3f}">{inside}<b>{label}</b></mark>'
                )
            else:
                parts.append(f'<mark dir="auto" title="{mark.score:.3f}">{inside}</mark>')
        yield f'<p dir="auto">{"".join(parts)}</p>\n'
    if picture.bars:
        yield "<dl>\n"
        for label, score in picture.bars[:MAX_BARS]:
            bar = f'<i style="width: {100 * min(max(score, 0.0), 1.0):.1f}%"></i>'
            yield f"<dt>{escape(printable(label))}</dt><dd>{bar}</dd><dd>{100 * score:.1f} %</dd>\n"
        yield "</dl>\n"
    if len(picture.bars) > MAX_BARS:
        yield f'<p class="note">{len(picture.bars) - MAX_BARS} more labels</p>\n'
    if picture.note:
        yield f'<p class="note">{escape(printable(picture.note))}</p>\n'
    if picture.error is not None:
        yield f'<p class="error">{escape(printable(picture.error))}</p>\n'
    yield "</article>\n"


def ansi(picture: Picture, labels: dict[str, int] | None = None, *, width: int = 100, color: bool = True) -> str:
    """Render a picture for a terminal; without colors, marks are in brackets.

    Pictures that share `labels` use the same color for a label.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
    )
    labels = {} if labels is None else labels
    for number, (caption, text) in enumerate(picture.texts, start=1):
        line = Text(f"{printable(caption)}: " if caption else "", style="dim")
        for piece, mark in _parts(text, picture.marks if number == len(picture.texts) else ()):
            if mark is None:
                line.append(printable(piece), style="not dim")
                continue
            hue = _TERMINAL[labels.setdefault(mark.label, len(labels) % len(_TERMINAL))] if mark.label else "yellow"
            line.append(printable(piece) if color else f"[{printable(piece)}]", style=f"not dim bold reverse {hue}")
            line.append(f"({printable(mark.label)} {mark.score:.2f})".replace("( ", "("), style=f"not dim {hue}")
        console.print(line, soft_wrap=False)
    for label, score in picture.bars[:MAX_BARS]:
        blocks = "█" * round(20 * min(max(score, 0.0), 1.0))
        console.print(Text(f"  {blocks:<20} {100 * score:5.1f} %  {printable(label)}"))
    for extra, style in ((picture.note, "dim"), (picture.error or "", "red")):
        if extra:
            console.print(Text(f"  {printable(extra)}", style=style))
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def _parts(text: str, marks: Sequence[Mark]) -> Iterator[tuple[str, Mark | None]]:
    """Split a text into marked and unmarked parts; shorten a long one. Overlapping marks are skipped."""
    place, whole = 0, len(text) <= LONG
    if not marks and not whole:
        yield text[:BEGINNING] + _left_out(len(text) - BEGINNING), None
        return
    for mark in marks:
        if mark.start < place:
            continue
        if whole or mark.start - place <= 2 * AROUND:
            yield text[place : mark.start], None
        else:
            head = text[place : place + AROUND] if place else ""
            gap = mark.start - AROUND - place - len(head)
            yield head + _left_out(gap) + text[mark.start - AROUND : mark.start], None
        yield text[mark.start : mark.end], mark
        place = mark.end
    rest = text[place:]
    yield rest if whole or len(rest) <= 2 * AROUND else rest[:AROUND] + _left_out(len(rest) - AROUND), None


def _left_out(count: int) -> str:
    return f" … ({count:,} characters left out) … "
