"""The contents of the report and the model card, and facts about the training."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bothways.data.examples import Example
from bothways.evaluation.compare import Comparison
from bothways.hardware import cores, model_name
from bothways.model.catalogue import CATALOGUE
from bothways.progress import clock
from bothways.render.report import Lengths, Mistake, Report, ReportRow, titled
from bothways.training.recipe import Recipe

HASHES = {"train": "train_sha256", "dev": "dev_sha256", "base": "base_sha256", "weights": "sha256"}
MAX_MISTAKES = 20  # in the report
PIPELINE_TAGS = {"classify": "text-classification", "tokens": "token-classification", "spans": "question-answering"}
PACKAGES = ("torch", "onnxruntime", "onnx", "openvino", "tokenizers", "numpy", "scikit-learn")


def report_of(
    title: str,
    comparison: Comparison,
    examples: Sequence[Example],
    facts: Sequence[tuple[str, str]],
    *,
    losses: Sequence[tuple[int, float]] = (),
    dev: Sequence[tuple[int, float]] = (),
    lengths: Lengths | None = None,
    texts: bool = True,
) -> Report:
    """Return a report on the last row of a comparison; without `texts`, it shows no examples."""
    task, model = comparison.task, comparison.rows[-1]
    wrong = [
        (example, prediction)
        for example, prediction in zip(examples, model.predictions, strict=True)
        if texts and task.loss != "regression" and example.reference is not None and prediction.error is None
        if not task.is_correct(prediction, example.reference)
    ]
    wrong = sorted(wrong, key=lambda pair: -pair[1].summary()[1])[:MAX_MISTAKES]  # a picture may have thousands of bars
    mistakes = [
        Mistake(
            " / ".join(example.texts),
            task.reference_summary(example),
            *prediction.summary(),
            prediction.picture(example),
        )
        for example, prediction in wrong
    ]
    measured = [("Measured with", model.engine)] if model.engine else []
    return Report(
        title=title,
        verdict=" ".join(comparison.verdicts),
        notes=comparison.notes,
        facts=[*facts, *measured, ("Date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")],
        rows=[
            ReportRow(
                row.title,
                row.metrics,
                row.p,
                row.texts_per_second,
                row.parameters,
                row.disk,
                row.memory,
                path="" if Path(row.name).is_absolute() else row.name,
            )
            for row in comparison.rows
        ],
        against=comparison.against.title,
        losses=losses,
        dev={task.headline: dev},
        scores=model.scores,
        mistakes=mistakes,
        lengths=lengths,
    )


def facts_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts about the training for a report, as (name, value) rows."""
    recipe = ", ".join(f"{name} {value}" for name, value in facts["recipe"].items() if value is not None)
    packages = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    hashes = ", ".join(f"{name} {facts[key][:12]}" for name, key in HASHES.items() if facts.get(key))
    return [
        ("Base model", _base(facts)),
        ("Training texts", f"{facts['n_train']:,} ({facts['train']})"),
        ("Dev texts", f"{facts['n_dev']:,} ({facts['dev']})"),
        ("Recipe", recipe),
        (
            "Training",
            f"{facts['steps']:,} steps in {clock(facts['training_seconds'])}, best at step {facts['best_step']:,}",
        ),
        ("Training speed", f"{facts['tokens_per_second']:,.0f} tokens/s, {facts['precision']}"),
        ("ONNX model", facts["onnx_model"]),
        *([("Command", command_of(facts))] if facts.get("train_sha256") else []),
        *([("SHA-256", hashes)] if hashes else []),
        ("Machine", facts["machine"]),
        ("Packages", packages),
    ]


def command_of(facts: dict[str, Any]) -> str:
    """Return the command that trains this model, with the options that differ from the defaults and file names only.

    >>> command_of({"task": "tag", "train": "train.txt", "dev": "", "base": "minilm-l6", "recipe": {"seed": 1}})
    'bothways finetune tag train.txt --base minilm-l6 --seed 1'
    """
    words = ["bothways", "finetune", facts["task"], facts["train"]]
    words += ["--dev", facts["dev"]] if facts.get("dev_sha256") else []
    words += ["--base", _base(facts)]
    words += ["--time-budget", f"{facts['time_budget']:g}"] if facts.get("time_budget") else []
    defaults = Recipe().as_json()
    for name, value in facts["recipe"].items():
        if name in defaults and value != defaults[name]:
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [f"--no-{option[2:]}"] if value is False else [option, str(value)]
    return shlex.join(words)


def _base(facts: dict[str, Any]) -> str:
    """Return the name of the base model, without the folders of an absolute path."""
    return Path(facts["base"]).name if Path(facts["base"]).is_absolute() else str(facts["base"])


def machine() -> str:
    """Describe the processor, the number of cores and the operating system."""
    return f"{model_name()}, {cores()} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def card_of(comparison: Comparison, facts: dict[str, Any]) -> str:
    """Return the model card: task, scores, training."""
    from huggingface_hub import ModelCardData

    task, rows = comparison.task, comparison.rows
    model, base = rows[-1], _base(facts)
    hub = CATALOGUE[base].hub if base in CATALOGUE else None
    tags = ModelCardData(
        library_name="bothways", base_model=hub, pipeline_tag=PIPELINE_TAGS[task.head], tags=["bothways", task.name]
    )
    table = ["| | " + " | ".join(_plain(row.title) for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for name in model.metrics:
        cells = [row.metrics.get(name) for row in rows]
        shown = [f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})" if x else "" for x in cells]
        table.append(f"| {titled(name)} | {' | '.join(shown)} |")
    return "\n".join(
        [
            "---",
            tags.to_yaml(),
            "---",
            f"# {task.name}, fine-tuned from {_plain(base)}",
            "",
            f"Task: {_plain(task.describe())}.",
            f"Long texts: windows of {task.max_length} tokens"
            + (", the first one only." if task.truncation else f" that share {task.stride}."),
            "",
            f"## Scores on {facts['n_dev']:,} dev examples, with 95 % intervals",
            "",
            *table,
            "",
            "\n\n".join(_plain(line) for line in (*comparison.verdicts, *comparison.notes)),
            "",
            "## How it was made",
            _training_of(facts),
            f"Machine: {facts['machine']}.",
            f"ONNX model: {_plain(facts['onnx_model'])}.",
            "",
            *(f"- {name}: {value}" for name, value in facts.get("recipe", {}).items()),
            "",
        ]
    )


def _training_of(facts: dict[str, Any]) -> str:
    if "averaged" in facts:
        names = ", ".join(_plain(one["name"]) for one in facts["averaged"])
        return f"The mean of the weights of {len(facts['averaged'])} models: {names}. The recipe is that of the last."
    return f"{facts['n_train']:,} training texts, {facts['steps']} steps, {clock(facts['training_seconds'])}."


def _plain(text: str) -> str:
    """Return text on one line with Markdown and HTML escaped."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in " ".join(text.split()))
