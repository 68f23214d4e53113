"""Tables for the terminal, with a maximum width in columns.

A table that is too wide is transposed, or its rows are listed one below the other. Only text wraps; numbers are never
truncated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from bothways.inference.plan import LONG_FROM, Plan
from bothways.metrics import Interval, Scores, without_repeats
from bothways.model.catalogue import CATALOGUE, INCLUDED
from bothways.progress import one_line

if TYPE_CHECKING:
    from bothways.evaluation.compare import Comparison
    from bothways.evaluation.tune import Trial

GAP = 2  # terminal columns between table columns
MIN_TEXT = 16  # minimum width of wrapped text in terminal columns
MAX_CLASSES = 30  # rows in the table of labels: the labels with the lowest F1
MAX_CONFUSED = 10  # rows in the list of confusions


def laid_out(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table with text in the first column and numbers in the others, at most `width` columns wide.

    model  F1        too wide: transposed   still too wide: list of rows
    a      0.9       model  a    b          model  a
    b      0.8       F1     0.9  0.8        F1     0.9

                                            model  b
                                            F1     0.8
    """
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    if _fits(cells, width):
        return _table(title, cells, width)
    turned = [list(column) for column in zip(*cells, strict=True)]
    if _fits(turned, width) and len(rows) > 1:
        return _table(title, turned, width)
    table = _empty(title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in cells[1:]:
        for name, cell in zip(cells[0], row, strict=True):
            if cell:
                table.add_row(escape(name), escape(cell))
        table.add_section()
    return table


def _empty(title: str, *, show_header: bool = True) -> Table:
    """Return an empty table without column lines, with two spaces between columns."""
    return Table(
        title=escape(one_line(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=show_header,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*cells, strict=True)]


def _fits(cells: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether the table fits; only the first column may wrap."""
    first, *others = _widths(cells)
    return min(first, MIN_TEXT) + sum(others) + GAP * len(others) <= width


def _table(title: str, cells: Sequence[Sequence[str]], width: int) -> Table:
    first, *others = _widths(cells)
    room = width - sum(others) - GAP * len(others)
    table = _empty(title)
    table.add_column(escape(cells[0][0]), overflow="fold", width=min(first, room))
    for name in cells[0][1:]:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for row in cells[1:]:
        table.add_row(*map(escape, row))
    return table


def models_tables(width: int) -> Iterator[Table]:
    """Yield the included models with their tasks, then the base models with their sizes."""
    yield laid_out("Included models (bothways-models)", ["model", "answers"], list(map(list, INCLUDED.items())), width)
    rows = []
    for name, base in CATALOGUE.items():
        config = base.config
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        counts = (f"{config.count_parameters():,}", f"{config.vocab_size:,}")
        rows.append([name, config.family, *map(str, shape), *counts])
    header = ["model", "family", "layers", "hidden", "heads", "parameters", "vocab"]
    yield laid_out("Base models", header, rows, width)


def comparison_tables(comparison: Comparison, width: int) -> Iterator[Table]:
    """Yield a table of metrics, then a table of speed and size."""
    rows = comparison.rows
    names = without_repeats(rows[0].scores.metrics)
    p_values = any(row.p is not None for row in rows)
    quality = [
        [
            row.title,
            *(_figure(row.scores.metrics[name]) for name in names),
            *([("" if row.p is None else f"{row.p:.2g}")] if p_values else []),
        ]
        for row in rows
    ]
    header = [
        "model",
        *(name.replace("_", " ") for name in names),
        *([f"p ({comparison.tested})".replace("_", " ")] if p_values else []),
    ]
    against = f"; p against {comparison.against.title}" if p_values else ""
    yield laid_out(f"{len(rows[0].predictions):,} texts, 95 % intervals{against}", header, quality, width)
    costs = [
        [
            row.title,
            f"{row.texts_per_second:,.0f}",
            f"{row.parameters:,}",
            f"{row.disk / 1e6:,.0f} MB",
            f"{row.memory / 1e6:,.0f} MB",
        ]
        for row in rows
    ]
    yield laid_out("Speed and size", ["model", "texts/s", "parameters", "disk", "memory"], costs, width)


def trials_tables(trials: Sequence[Trial], width: int) -> Iterator[Table]:
    """Yield the measurements, the winner first; then the reasons for plans that are not used."""
    measured = [trial for trial in trials if not trial.problem]
    rows, classes = [], []
    for place, trial in enumerate(measured):
        onnx_model = trial.onnx_model
        agreement = None if onnx_model is None else onnx_model.agreement
        rejected = onnx_model is not None and onnx_model.rejected
        plan = [_engine_of(trial.plan), f"{trial.plan.workers}x{trial.plan.max_tokens}"]
        rows.append(
            [
                *plan,
                f"{trial.texts_per_second:,.0f}",
                f"{trial.milliseconds:,.2f}",
                f"{trial.memory / 1e6:,.0f} MB",
                f"{trial.cold_start:,.2f} s",
                "" if agreement is None else f"{100 * agreement:.1f} %",
                "rejected" if rejected else "chosen" if place == 0 else "",
            ]
        )
        if trial.by_length:
            classes.append(plan + [f"{each.texts_per_second:,.0f}" for each in trial.by_length])
            classes[-1] += [f"{each.milliseconds:,.2f}" for each in trial.by_length]
    header = ["engine", "batches", "texts/s", "ms/text", "memory", "start", "same", ""]
    title = (
        "From raw text to answer, on this machine. batches: parallel batches x tokens per batch; ms/text: one text "
        "alone; start: time from process start to first answer; same: answers that agree with fp32"
    )
    yield laid_out(title, header, rows, width)
    if classes:
        header = ["engine", "batches", "texts/s: short", "long", "ms/text: short", "long"]
        yield laid_out(f"Short texts, and long ones of {LONG_FROM} tokens and more", header, classes, width)
    problems = [
        [
            _engine_of(trial.plan),
            trial.problem or str(trial.onnx_model and trial.onnx_model.rejected),
        ]
        for trial in trials
        if trial.problem or (trial.onnx_model is not None and trial.onnx_model.rejected)
    ]
    if problems:
        yield _texts("Not used", ("engine", "reason"), problems)


def _engine_of(plan: Plan) -> str:
    own = f"{plan.engine} {plan.precision}"
    if plan.long is None:
        return own
    long = plan.long
    return f"{own}; from {plan.from_tokens} tokens {long.engine} {long.precision} {long.workers}x{long.max_tokens}"


def facts_table(model: str, facts: Mapping[str, Any]) -> Table:
    """Return a table with one row per fact about a model."""
    return _texts(model, ("", ""), list(_facts(facts)), show_header=False)


def _facts(facts: Mapping[str, Any], before: str = "") -> Iterator[list[str]]:
    for name, value in facts.items():
        label = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _facts(value, f"{label}: ")
        elif isinstance(value, list | tuple) and value:
            lines = [
                ", ".join(f"{key} {one}" for key, one in item.items()) if isinstance(item, Mapping) else str(item)
                for item in value
            ]
            shown = ", ".join(lines[:MAX_CLASSES])
            yield [label, f"{len(lines):,}: {shown}, ..." if len(lines) > MAX_CLASSES else shown]
        elif value not in (None, "", [], ()):
            yield [label, f"{value:,}" if type(value) is int else str(value)]


def _texts(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, show_header: bool = True) -> Table:
    """Return a table of wrapped texts."""
    table = _empty(title, show_header=show_header)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(one_line(cell)) for cell in row))
    return table


def evaluation_tables(scores: Scores, width: int) -> Iterator[Table]:
    """Yield the confusions, the scores per label and the metrics (last, next to the prompt)."""
    yield from _confusion(scores, width)
    if scores.per_class:
        ranked = sorted(scores.per_class, key=lambda row: row.f1)
        shown = scores.per_class if len(ranked) <= MAX_CLASSES else ranked[:MAX_CLASSES]
        title = "Each label"
        if len(ranked) > MAX_CLASSES:
            title = f"The {MAX_CLASSES} labels of {len(ranked)} with the lowest F1 (--json has all)"
        rows = [
            [row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.support:,}"]
            for row in shown
        ]
        yield laid_out(title, ["label", "precision", "recall", "F1", "support"], rows, width)
    headline = [
        [name.replace("_", " "), f"{interval.value:z.4f}", f"{interval.low:z.4f} to {interval.high:z.4f}"]
        for name, interval in ((name, scores.metrics[name]) for name in without_repeats(scores.metrics))
    ]
    yield laid_out("Metrics", ["metric", "value", "95 % interval"], headline, width)


def _confusion(scores: Scores, width: int) -> Iterator[Table]:
    """Yield the confusion matrix if it fits, otherwise the most frequent confusions."""
    if scores.confusion is not None and len(scores.labels) < width:
        cells = [["true \\ predicted", *map(one_line, scores.labels)]]
        for label, row in zip(scores.labels, scores.confusion, strict=True):
            cells.append([one_line(label), *(f"{count:,}" for count in row)])
        if _fits(cells, width):
            yield _table("Confusion", cells, width)
            return
    if not scores.confused:
        return
    table = _empty("Most frequent confusions (--json has more)")
    table.add_column("true", overflow="fold")
    table.add_column("predicted", overflow="fold")
    table.add_column("texts", justify="right", no_wrap=True)
    for reference, predicted, count in scores.confused[:MAX_CONFUSED]:
        table.add_row(escape(one_line(reference)), escape(one_line(predicted)), f"{count:,}")
    yield table


def _figure(interval: Interval) -> str:
    return f"{interval.value:z.3f} ({interval.low:z.3f} to {interval.high:z.3f})"
