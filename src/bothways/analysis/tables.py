"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bothways.metrics import Interval, Scores
from bothways.model.catalogue import CATALOGUE

if TYPE_CHECKING:
    from bothways.analysis.compare import Comparison
    from bothways.analysis.tune import Trial

MOST_CLASSES = 20  # in a confusion matrix on a terminal


def models_table() -> Table:
    """The base models and their shapes, from their configs."""
    table = Table("model", "family", title="Base models")
    for column in ("layers", "hidden", "heads", "parameters", "vocabulary"):
        table.add_column(column, justify="right")
    for name, base in CATALOGUE.items():
        config = base.config
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        table.add_row(name, config.family, *map(str, shape), f"{config.count_parameters():,}", f"{config.vocab_size:,}")
    return table


def comparison_table(comparison: Comparison) -> Table:
    """One row a model, the baseline first."""
    names = list(comparison.rows[0].scores.metrics)
    table = Table("model", title=f"{len(comparison.rows[0].predictions):,} texts, 95 % intervals")
    for column in (*(name.replace("_", " ") for name in names), "McNemar p", "texts/s", "parameters", "disk", "memory"):
        table.add_column(column, justify="right")
    for row in comparison.rows:
        table.add_row(
            escape(row.name),
            *(_figure(row.scores.metrics[name]) for name in names),
            "" if row.p is None else f"{row.p:.2g}",
            f"{row.texts_per_second:,.0f}",
            f"{row.parameters:,}",
            f"{row.disk / 1e6:,.0f} MB",
            f"{row.memory / 1e6:,.0f} MB",
        )
    return table


def trials_table(trials: Sequence[Trial]) -> Table:
    """What was measured, the winner first."""
    table = Table("engine", "precision", title="From raw text to answer, on this machine")
    for column in ("streams", "tokens a batch", "texts/s", "memory", "same answers"):
        table.add_column(column, justify="right")
    table.add_column("")
    for place, trial in enumerate(trials):
        plan, graph = trial.plan, trial.graph
        remark = trial.problem or (graph.rejected if graph is not None and graph.rejected else "")
        table.add_row(
            plan.engine,
            plan.precision,
            str(plan.streams),
            str(plan.max_tokens),
            "" if trial.problem else f"{trial.texts_per_second:,.0f}",
            "" if trial.problem else f"{trial.memory / 1e6:,.0f} MB",
            "" if graph is None or graph.agreement is None else f"{100 * graph.agreement:.1f} %",
            escape(remark or ("used from now on" if place == 0 else "")),
        )
    return table


def evaluation_tables(scores: Scores) -> Iterator[Table]:
    """The headline figures, then each class, then who is taken for whom."""
    headline = Table("metric", "value", "95 % interval", title="Metrics")
    for name, interval in scores.metrics.items():
        headline.add_row(name.replace("_", " "), f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")
    yield headline
    if scores.per_class:
        table = Table("label", title="Each class")
        for column in ("precision", "recall", "F1", "support"):
            table.add_column(column, justify="right")
        for row in scores.per_class:
            table.add_row(
                escape(row.label), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.support:,}"
            )
        yield table
    if scores.confusion is not None and len(scores.labels) > MOST_CLASSES:
        yield Table(title=f"The confusion of {len(scores.labels)} labels is too wide to show; --json has it")
    elif scores.confusion is not None:
        table = Table("gold \\ predicted", *map(escape, scores.labels), title="Confusion")
        for label, counts in zip(scores.labels, scores.confusion, strict=True):
            table.add_row(escape(label), *(f"{count:,}" for count in counts))
        yield table


def _figure(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"
