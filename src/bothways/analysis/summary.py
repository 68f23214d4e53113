"""What is said of a model beside its weights: the report's contents, the model card, the facts of its making."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from bothways.analysis.compare import Comparison
from bothways.analysis.report import Lengths, Mistake, Report, Row
from bothways.processor import model_name
from bothways.tasks.task import Example
from bothways.terminal import clock

MOST_MISTAKES = 20  # in a report
PIPELINE_TAGS = {"classify": "text-classification", "tokens": "token-classification", "spans": "question-answering"}


def report_of(
    title: str,
    comparison: Comparison,
    examples: Sequence[Example],
    facts: Sequence[tuple[str, str]],
    *,
    losses: Sequence[tuple[int, float]] = (),
    dev: Sequence[tuple[int, float]] = (),
    lengths: Lengths | None = None,
) -> Report:
    """A report about the last row of a comparison."""
    task, model = comparison.task, comparison.rows[-1]
    wrong = [
        Mistake(
            " / ".join(example.texts),
            task.written(example),
            *prediction.said(),
        )
        for example, prediction in zip(examples, model.predictions, strict=True)
        if task.loss != "regression" and example.gold is not None and not task.right(prediction, example.gold)
    ]
    return Report(
        title=title,
        verdict=" ".join(comparison.verdicts),
        facts=facts,
        rows=[
            Row(row.name, row.metrics, row.p, row.texts_per_second, row.parameters, row.disk, row.memory)
            for row in comparison.rows
        ],
        losses=losses,
        dev={task.headline: dev},
        scores=model.scores,
        mistakes=sorted(wrong, key=lambda mistake: -mistake.score)[:MOST_MISTAKES],
        lengths=lengths,
    )


def facts_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What a report says of how the model was made."""
    recipe = ", ".join(f"{name} {value}" for name, value in facts["recipe"].items() if value is not None)
    packages = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        ("Base model", facts["base"]),
        ("Training texts", f"{facts['n_train']:,} ({facts['train']})"),
        ("Dev texts", f"{facts['n_dev']:,} ({facts['dev']})"),
        ("Recipe", recipe),
        (
            "Training",
            f"{facts['steps']:,} steps in {clock(facts['training_seconds'])}, best at step {facts['best_step']:,}",
        ),
        ("Speed", f"{facts['tokens_per_second']:,.0f} tokens a second, {facts['precision']}"),
        ("Graph", facts["graph"]),
        ("Machine", facts["machine"]),
        ("Packages", packages),
    ]


def machine() -> str:
    """The processor, its cores and the system, in a few words."""
    return f"{model_name()}, {os.cpu_count()} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {name: metadata.version(name) for name in ("torch", "tokenizers", "numpy", "scikit-learn")}


def card_of(comparison: Comparison, facts: dict[str, Any]) -> str:
    """The model card: what the model does, how well, how it was made."""
    task, rows = comparison.task, comparison.rows
    model = rows[-1]
    table = ["| | baseline | this model |", "|---|---|---|"]
    for name, interval in model.scores.metrics.items():
        first = rows[0].scores.metrics.get(name) if len(rows) > 1 else None
        cells = [f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})" if x else "" for x in (first, interval)]
        table.append(f"| {name.replace('_', ' ')} | {cells[0]} | {cells[1]} |")
    return "\n".join(
        [
            "---",
            "library_name: bothways",
            f"base_model: {facts['base']}",
            f"pipeline_tag: {PIPELINE_TAGS[task.head]}",
            "---",
            f"# {task.name}, fine-tuned from {facts['base']}",
            "",
            f"Answers with {task.describe()}.",
            f"Texts are read in windows of {task.max_pieces} pieces"
            + (" and no further than the first." if task.long == "cut" else "."),
            "",
            f"## On {facts['n_dev']:,} dev texts, 95 % intervals",
            "The dev texts also chose the checkpoint, so expect slightly less on new texts.",
            "",
            *table,
            "",
            *comparison.verdicts,
            "",
            "## How it was made",
            f"{facts['n_train']:,} texts, {facts['steps']} steps, {clock(facts['training_seconds'])}.",
            f"Machine: {facts['machine']}.",
            f"Graph that runs without PyTorch: {facts['graph']}.",
            "",
            *(f"- {name}: {value}" for name, value in facts["recipe"].items()),
            "",
        ]
    )
