"""One HTML file that says how good a model is: no network, no script, readable on paper and on a phone."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bothways import __version__
from bothways.errors import MissingDependencyError
from bothways.metrics import Counts, Interval, Scores
from bothways.storage import replacing, write_text

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "micro_f1": "Micro-F1",
    "matthews": "Matthews correlation",
    "calibration_error": "Calibration error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mean_absolute_error": "Mean absolute error",
    "entity_f1": "Entity F1",
    "entity_precision": "Entity precision",
    "entity_recall": "Entity recall",
    "token_accuracy": "Word accuracy",
    "exact_match": "Exact match",
    "f1": "F1",
    "has_answer_exact_match": "Exact match where there is an answer",
    "has_answer_f1": "F1 where there is an answer",
    "no_answer_accuracy": "Accuracy where there is none",
    "mlm_accuracy": "Hidden pieces guessed",
    "nsp_accuracy": "Next sentences told",
    "perplexity": "Perplexity of hidden pieces",
    "mlm_loss": "Loss of hidden pieces",
    "nsp_loss": "Loss of next sentences",
}
LOWER_IS_BETTER = {"mean_absolute_error", "perplexity", "mlm_loss", "nsp_loss"}
PERCENT = set(METRIC_TITLES) - LOWER_IS_BETTER - {"matthews", "pearson", "spearman"}
MOST_CELLS = 12  # labels; a larger confusion matrix is drawn without numbers
MOST_PAIRS = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One system in the comparison: p is McNemar's against the first row; sizes are in bytes."""

    name: str
    metrics: dict[str, Interval]
    p: float | None = None
    texts_per_second: float | None = None
    parameters: int | None = None
    disk: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer, with the probability that the model gave it."""

    text: str
    gold: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Pieces per text, the window's limit in pieces, texts read in several windows, pieces not read at all."""

    pieces: Sequence[int]
    limit: int
    windowed: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a report shows; a part that is empty or None is left out.

    `losses` are (step, value) pairs, `dev` those of each metric on development data; `scores` are those of
    the model that the report is about, `mistakes` its most confident ones.
    """

    title: str
    verdict: str = ""
    facts: Sequence[tuple[str, str]] = ()
    rows: Sequence[Row] = ()
    losses: Sequence[tuple[int, float]] = ()
    dev: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    scores: Scores = field(default_factory=lambda: Scores({}))
    mistakes: Sequence[Mistake] = ()
    lengths: Lengths | None = None


class Theme(NamedTuple):
    """The colours of a plot."""

    ink: str
    line: str
    accent: str


class Plot(NamedTuple):
    """A picture as data URIs, for light pages and dark ones, and in words."""

    alt: str
    light: str
    dark: str


Drawn = tuple[str, Callable[[Any, Theme], None]]  # what a plot shows in words, and how to draw it
THEMES = Theme("#59626c", "#dfe2e6", "#1f6f8b"), Theme("#a3adb7", "#343b42", "#6cb8d6")


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file, whole or not at all.

    Raises MissingDependencyError without Jinja2 and matplotlib.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - used further down, but here its absence has one message
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs {error.name}, which was not found: pip install 'bothways[train]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "label": _label, "titled": _titled}
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    page = template.render(report=report, version=__version__, percent=PERCENT, **_parts(report))
    write_text(path, page.encode("utf-8", "replace").decode())


def _parts(report: Report) -> dict[str, Any]:
    """What the template needs besides the report itself."""
    confusion, lengths = report.scores.confusion, report.lengths
    many = confusion is not None and len(confusion) > MOST_CELLS
    metrics = list(dict.fromkeys(name for row in report.rows for name in _telling(row.metrics)))
    curves = [_plot(*_drawn_loss(report.losses))] if report.losses else []
    curves += [_plot(*_drawn_dev(points, metric)) for metric, points in report.dev.items() if points]
    return {
        "tiles": _telling(report.scores.metrics),
        "metrics": metrics,
        "place": _places([row.metrics[metrics[0]] for row in report.rows if metrics and metrics[0] in row.metrics]),
        "curves": curves,
        "classes": sorted(report.scores.per_class, key=lambda row: row.f1),
        "matrix": confusion.tolist() if confusion is not None and not many else [],
        "heat_map": _heat_map(confusion) if confusion is not None and many else None,
        "pairs": _confused_pairs(confusion, report.scores.labels) if confusion is not None and many else [],
        "histogram": _histogram(lengths) if lengths is not None and len(lengths.pieces) else None,
    }


def _telling(metrics: dict[str, Interval]) -> list[str]:
    """The names of the metrics, without a micro-F1 that repeats the accuracy (as it does with one label each)."""
    repeated = metrics.get("micro_f1") == metrics.get("accuracy")
    return [name for name in metrics if not (repeated and name == "micro_f1")]


def _places(intervals: Sequence[Interval]) -> Callable[[float], float]:
    """Map a value to its place, 0 to 100, between the lowest and the highest end."""
    low = min((interval.low for interval in intervals), default=0.0)
    width = max((interval.high - low for interval in intervals), default=0.0)
    return lambda value: round(100 * (value - low) / width, 1) if width > 0 else 50.0


def _confused_pairs(confusion: Counts, labels: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(gold, predicted, texts, share of the gold label's texts), the most frequent first."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    wrong = [(int(confusion[g, p]), float(shares[g, p]), g, p) for g, p in np.argwhere(confusion) if g != p]
    most = sorted(wrong, key=lambda pair: pair[:2], reverse=True)[:MOST_PAIRS]
    return [(labels[g], labels[p], n, share) for n, share, g, p in most]


def _styled(axes: Any, theme: Theme) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.line)
    axes.tick_params(labelsize=8, labelcolor=theme.ink, color=theme.line)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.ink, size=9)
    return axes


def _plot(alt: str, draw: Callable[[Any, Theme], None], size: tuple[float, float] = (4.6, 2.7)) -> Plot:
    """Draw once for each theme; `size` in inches."""
    from matplotlib.figure import Figure

    pictures = []
    for theme in THEMES:
        figure = Figure(figsize=size, layout="constrained")
        draw(_styled(figure.add_subplot(), theme), theme)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pictures.append("data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())
    return Plot(alt, *pictures)


def write_curves(path: Path, report: Report) -> None:
    """Write the curves of a report as one PNG, side by side."""
    from matplotlib.figure import Figure

    drawn = [_drawn_loss(report.losses)] if report.losses else []
    drawn += [_drawn_dev(points, metric) for metric, points in report.dev.items() if points]
    if not drawn:
        return
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.0 * rows), layout="constrained")
    for number, (_, draw) in enumerate(drawn, start=1):
        draw(_styled(figure.add_subplot(rows, columns, number), THEMES[0]), THEMES[0])
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _drawn_loss(losses: Sequence[tuple[int, float]]) -> Drawn:
    steps, values = np.array(losses, dtype=np.float64).T
    window = max(1, len(values) // 30)
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(steps, values, color=theme.accent, alpha=0.3, linewidth=0.8)
        axes.plot(steps[window - 1 :], smooth, color=theme.accent, linewidth=1.6)
        axes.set(xlabel="step", ylim=(0, None))
        axes.set_title("Training loss", size=9, color=theme.ink, loc="left")

    start, end = smooth[[0, -1]]
    return f"Training loss, from {start:.3f} at the start to {end:.3f} at step {steps[-1]:,.0f}.", draw


def _drawn_dev(dev: Sequence[tuple[int, float]], metric: str) -> Drawn:
    steps, values = np.array(dev, dtype=np.float64).T
    best = int(values.argmin() if metric in LOWER_IS_BETTER else values.argmax())
    title, peak = f"{_titled(metric)} on development data", _figure(values[best], metric)

    def draw(axes: Any, theme: Theme) -> None:
        from matplotlib.ticker import NullFormatter

        axes.plot(steps, values, color=theme.accent, linewidth=1.6, marker="o", markersize=3.5)
        spot = (steps[best], values[best])
        axes.plot(*spot, color=theme.accent, marker="o", markersize=9, fillstyle="none")
        axes.annotate(peak, spot, (0, 8), textcoords="offset points", ha="center", size=8, color=theme.ink)
        axes.margins(y=0.2)
        axes.set(xlabel="step")
        axes.set_title(title, size=9, color=theme.ink, loc="left")
        if metric == "perplexity":
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: _figure(value, metric))

    return f"{title}, best {peak} at step {steps[best]:,.0f}.", draw


def _heat_map(confusion: Counts) -> Plot:
    from matplotlib.colors import LinearSegmentedColormap

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)

    def draw(axes: Any, theme: Theme) -> None:
        colours = LinearSegmentedColormap.from_list("accent", [f"{theme.accent}00", theme.accent])
        axes.imshow(np.cbrt(shares), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.spines[:].set(visible=True, color=theme.line)
        axes.set(xlabel="predicted", ylabel="gold")

    K = len(confusion)
    return _plot(
        f"Heat map of {K} gold labels by {K} predicted ones; right answers lie on the diagonal.", draw, (5.4, 5.4)
    )


def _histogram(lengths: Lengths) -> Plot:
    pieces = np.asarray(lengths.pieces)

    def draw(axes: Any, theme: Theme) -> None:
        axes.hist(pieces, bins=min(40, int(np.ptp(pieces)) + 1), color=theme.accent, alpha=0.8)
        axes.axvline(lengths.limit, color=theme.ink, linestyle="--", linewidth=1)
        axes.set(xlabel="pieces in a text", ylabel="texts")

    middle, most = np.median(pieces), pieces.max()
    return _plot(f"Histogram of text lengths: median {middle:,.0f} pieces, longest {most:,}.", draw, (6.4, 2.7))


def _figure(value: float, metric: str) -> str:
    if metric == "perplexity":
        return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return f"{100 * value:.1f} %" if metric in PERCENT else f"{value:.3f}"


def _titled(metric: str) -> str:
    return METRIC_TITLES.get(metric, metric)


def _label(name: str) -> Any:
    """A name that may break after its joints; a narrow column would break it anywhere."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([_/.:-])(?=\w)", r"\1<wbr>", str(escape(name or "(no answer)"))))
