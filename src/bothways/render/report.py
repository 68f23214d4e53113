"""HTML report on the quality of a model: one file without scripts or network access, for screen and print."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bothways import __version__
from bothways.errors import MissingDependencyError
from bothways.metrics import Counts, Interval, Scores, without_repeats
from bothways.storage import replacing, write_text
from bothways.tasks.picture import Picture

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "matthews": "Matthews correlation",
    "calibration_error": "Calibration error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mean_absolute_error": "Mean absolute error",
    "root_mean_squared_error": "Root mean squared error",
    "r2": "R²",
    "entity_f1": "Entity F1",
    "entity_precision": "Entity precision",
    "entity_recall": "Entity recall",
    "token_accuracy": "Tag accuracy",
    "exact_match": "Exact match",
    "f1": "F1",
    "has_answer_exact_match": "Exact match, answerable questions",
    "has_answer_f1": "F1, answerable questions",
    "no_answer_accuracy": "Accuracy, unanswerable questions",
    "mlm_accuracy": "Masked-token accuracy",
    "nsp_accuracy": "Next-sentence accuracy",
    "perplexity": "Perplexity of masked tokens",
    "mlm_loss": "MLM loss",
    "nsp_loss": "NSP loss",
}
LOWER_IS_BETTER = {"mean_absolute_error", "root_mean_squared_error", "perplexity", "mlm_loss", "nsp_loss"}
PERCENT = set(METRIC_TITLES) - LOWER_IS_BETTER - {"matthews", "pearson", "spearman", "r2"}
MAX_CELLS = 12  # labels; a larger confusion matrix is drawn without numbers
MAX_PAIRS = 12
MAX_CLASSES = 200  # labels in the per-label table, lowest F1 first
MIN_AXIS = 0.1  # minimum length of the axis of intervals, so that a difference of half a point does not fill it
AROUND = 150  # characters shown before and after a mark


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One system in the comparison: `p` is McNemar's against the reference; `disk` and `memory` are in bytes."""

    name: str
    metrics: dict[str, Interval]
    p: float | None = None
    texts_per_second: float | None = None
    parameters: int | None = None
    disk: int | None = None
    memory: int | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong prediction with its score, and a picture of the text with its marks, if any."""

    text: str
    reference: str
    predicted: str
    score: float
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per text, maximum window length, number of texts with several windows, number of truncated tokens."""

    tokens: Sequence[int]
    limit: int
    windowed: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a report; empty parts are omitted.

    `notes` are caveats about the results; `against` names the reference row. `losses` are (step, value) pairs, `dev`
    the same for each metric on development data. `scores` are the scores of the reported model, `mistakes` its most
    confident errors.
    """

    title: str
    verdict: str = ""
    facts: Sequence[tuple[str, str]] = ()
    rows: Sequence[ReportRow] = ()
    losses: Sequence[tuple[int, float]] = ()
    dev: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    scores: Scores = field(default_factory=lambda: Scores({}))
    mistakes: Sequence[Mistake] = ()
    lengths: Lengths | None = None
    notes: Sequence[str] = ()
    against: str = ""


class Theme(NamedTuple):
    """The colors of a plot."""

    ink: str
    line: str
    accent: str


class Plot(NamedTuple):
    """A plot as data URIs for light and dark pages, with its alt text."""

    alt: str
    light: str
    dark: str


Drawn = tuple[str, Callable[[Any, Theme], None]]  # alt text and drawing function of a plot
THEMES = Theme("#59626c", "#dfe2e6", "#1f6f8b"), Theme("#a3adb7", "#343b42", "#6cb8d6")


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file, atomically.

    Raises MissingDependencyError without Jinja2 and matplotlib.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - used further down, but here its absence has one message
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs {error.name}, which is not installed: pip install 'bothways[train]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "label": _label, "titled": titled, "marked": _marked}
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    page = template.render(report=report, version=__version__, percent=PERCENT, **_parts(report))
    write_text(path, page.encode("utf-8", "replace").decode())


def _parts(report: Report) -> dict[str, Any]:
    """The template variables besides the report itself."""
    confusion, lengths = report.scores.confusion, report.lengths
    many = len(report.scores.labels) > MAX_CELLS
    metrics = list(dict.fromkeys(name for row in report.rows for name in without_repeats(row.metrics)))
    curves = [_plot(*_drawn_loss(report.losses))] if report.losses else []
    curves += [_plot(*_drawn_dev(points, metric)) for metric, points in report.dev.items() if points]
    classes = sorted(report.scores.per_class, key=lambda row: row.f1)
    headline = metrics[0] if metrics else ""
    axis = _axis([row.metrics[headline] for row in report.rows if headline in row.metrics])
    return {
        "tiles": without_repeats(report.scores.metrics),
        "metrics": metrics,
        "axis": [_figure(end, headline) for end in axis],
        "place": lambda value: round(100 * (value - axis[0]) / (axis[1] - axis[0]), 1),
        "curves": curves,
        "classes": classes[:MAX_CLASSES],
        "more_classes": max(0, len(classes) - MAX_CLASSES),
        "matrix": confusion.tolist() if confusion is not None and not many else [],
        "heat_map": _heat_map(confusion) if confusion is not None and many else None,
        "pairs": _confused_pairs(report.scores) if many else [],
        "reliability": _reliability(report.scores.reliability) if report.scores.reliability else None,
        "histogram": _histogram(lengths) if lengths is not None and len(lengths.tokens) else None,
    }


def _axis(intervals: Sequence[Interval]) -> tuple[float, float]:
    """The limits of an axis that contains all intervals: multiples of 0.05, at least 0.1 apart.

    >>> _axis([Interval(0.912, 0.903, 0.921)])
    (0.85, 0.95)
    """
    low = math.floor(20 * min((one.low for one in intervals), default=0.0) + 1e-9) / 20
    high = math.ceil(20 * max((one.high for one in intervals), default=1.0) - 1e-9) / 20
    if high - low < MIN_AXIS - 1e-9:
        low, high = (low, round(low + MIN_AXIS, 2)) if 0 <= low < MIN_AXIS else (round(high - MIN_AXIS, 2), high)
    return low, high


def _confused_pairs(scores: Scores) -> list[tuple[str, str, int, float]]:
    """(reference, predicted, texts, share of the reference label's texts), most frequent first."""
    support = {row.label: row.support for row in scores.per_class}
    return [
        (reference, guess, n, n / max(1, support.get(reference, n)))
        for reference, guess, n in scores.confused[:MAX_PAIRS]
    ]


def _marked(mistake: Mistake) -> Any:
    """The text of a mistake as HTML; a long one is shortened to its beginning or around its marks."""
    from markupsafe import Markup, escape

    if mistake.picture is None or not mistake.picture.marks:
        left = len(mistake.text) - 2 * AROUND
        more = f" … ({left:,} more characters)" if left > 0 else ""
        return escape(mistake.text[: 2 * AROUND] + more)
    captions = [text for _, text in mistake.picture.texts]
    parts, place, text = [escape(f"{caption}\n") for caption in captions[:-1]], 0, captions[-1]
    for mark in sorted(mistake.picture.marks, key=lambda mark: mark.start):
        if mark.start < place:
            continue
        parts.append(escape(_shortened(text[place : mark.start], first=place == 0)))
        label = Markup("<b>{}</b>").format(mark.label) if mark.label else ""
        parts.append(Markup("<mark>{}{}</mark>").format(text[mark.start : mark.end], label))
        place = mark.end
    rest = text[place:]
    parts.append(escape(rest if len(rest) <= 2 * AROUND else rest[:AROUND] + " …"))
    return Markup("").join(parts)


def _shortened(text: str, *, first: bool) -> str:
    """Shorten the text before a mark: omit its middle, or before the first mark its beginning."""
    if len(text) <= 2 * AROUND:
        return text
    return ("" if first else text[:AROUND]) + "… " + text[-AROUND:]


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
    """Draw once per theme; `size` is in inches."""
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
    """Write the training curves of a report side by side in one PNG."""
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
    title, peak = f"{titled(metric)} on development data", _figure(values[best], metric)

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
        colors = LinearSegmentedColormap.from_list("accent", [f"{theme.accent}00", theme.accent])
        axes.imshow(np.cbrt(shares), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.spines[:].set(visible=True, color=theme.line)
        axes.set(xlabel="predicted label", ylabel="true label")

    K = len(confusion)
    return _plot(
        f"Heat map of {K} reference labels by {K} predicted ones; correct answers are on the diagonal.",
        draw,
        (5.4, 5.4),
    )


def _reliability(bins: Sequence[tuple[float, float, int]]) -> Plot:
    confidence, accuracy, sizes = np.array(bins).T

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.ink, linestyle="--", linewidth=1)
        axes.plot(confidence, accuracy, color=theme.accent, linewidth=1.2)
        axes.scatter(confidence, accuracy, s=8 + 120 * sizes / sizes.max(), color=theme.accent, alpha=0.8)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))

    below = sizes[accuracy < confidence].sum() / sizes.sum()
    return _plot(
        f"Reliability diagram: accuracy by confidence, in {len(bins)} bins; {100 * below:.0f} % of the examples are in "
        "bins where the model is more confident than it is right.",
        draw,
        (4.6, 3.6),
    )


def _histogram(lengths: Lengths) -> Plot:
    tokens = np.asarray(lengths.tokens)

    def draw(axes: Any, theme: Theme) -> None:
        axes.hist(tokens, bins=min(40, int(np.ptp(tokens)) + 1), color=theme.accent, alpha=0.8)
        axes.axvline(lengths.limit, color=theme.ink, linestyle="--", linewidth=1)
        axes.set(xlabel="tokens in a text", ylabel="texts")

    middle, most = np.median(tokens), tokens.max()
    return _plot(f"Histogram of text lengths: median {middle:,.0f} tokens, longest {most:,}.", draw, (6.4, 2.7))


def _figure(value: float, metric: str) -> str:
    if metric == "perplexity":
        return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return f"{100 * value:.1f} %" if metric in PERCENT else f"{value:.3f}"


def titled(metric: str) -> str:
    """The display name of a metric."""
    return METRIC_TITLES.get(metric, metric)


def _label(name: str) -> Any:
    """A name that can wrap after its separators, instead of anywhere, in a narrow column."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([_/.:-])(?=\w)", r"\1<wbr>", str(escape(name or "(no answer)"))))
