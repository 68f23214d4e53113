"""Compares models on the same texts, and classifiers with two baselines: quality, speed, size, memory.

Each model is measured in a separate process, so that the others do not affect its memory and speed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.examples import Example
from bothways.errors import BothwaysError, ModelNotFoundError, OptionError
from bothways.evaluation.features import sample
from bothways.evaluation.measure import in_process
from bothways.evaluation.verdicts import Contender, cautions, caveat, collapsed, verdict
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import EXPORT, FOLDER
from bothways.metrics import mcnemar
from bothways.model.catalogue import HUB, find_model
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.tasks import Trainable, as_trainable

BASELINE = "TF-IDF + linear model"
LEFT_OUT = "The baseline on embeddings of the base is left out"
MAX_LABELS = 1000  # above it, a linear model on embeddings takes minutes


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows (baselines first), the index of the reference row, a verdict for each compared row, and notes."""

    task: Trainable
    rows: tuple[Contender, ...]
    verdicts: tuple[str, ...]
    against_row: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows = (f"{row.title} {row.metrics[self.task.headline].value:.3f}" for row in self.rows)
        return f"<Comparison on {len(self.rows[0].predictions):,} examples, {self.task.headline}: {', '.join(rows)}>"

    @property
    def against(self) -> Contender:
        """The reference row of the p-values and most verdicts."""
        return self.rows[self.against_row]

    @property
    def tested(self) -> str | None:
        """The metric of McNemar's test, if any row has a p-value."""
        named = {"single": "accuracy", "spans": "exact_match"}
        return named.get(self.task.loss) if any(row.p is not None for row in self.rows) else None

    def as_json(self) -> dict[str, Any]:
        """Return the table, verdicts and notes as a JSON object."""
        return {
            "task": self.task.name,
            "n": len(self.rows[0].predictions),
            "against": self.against.name,
            "p_is_of": self.tested,
            "rows": [row.as_json() for row in self.rows],
            "verdicts": list(self.verdicts),
            "notes": list(self.notes),
        }


def compare_on(
    test: Sequence[Example],
    directories: Sequence[Path],
    train: Sequence[Example] = (),
    *,
    base: Path | None = None,
    against: str | None = None,
    dev: bool = False,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measure the models in `directories` on `test`, and for classes and numbers also two baselines fitted on `train`:
    a linear model on TF-IDF, and one on embeddings of `base`.

    Each model is compared with `against` ("baseline", a directory or its last part). The default is the best baseline,
    or without baselines the first model; with baselines, models are also compared with the first model. `base` defaults
    to that of the first model, if it is on this machine. `dev` means that `test` was also used to choose checkpoints.

    Raises `OptionError` if the models differ in task, kind or labels, or there is nothing to compare a model with.
    """
    reporter = reporter or Reporter(quiet=True)
    if not directories:
        raise OptionError("no model to compare; expected at least one directory")
    model_directories = [ModelDirectory.read(directory) for directory in directories]
    task = as_trainable(model_directories[0].task)
    for model_directory in model_directories[1:]:
        if _question(as_trainable(model_directory.task)) != _question(task):
            raise OptionError(
                f"{model_directory.path} and {model_directories[0].path} answer different questions "
                "(task, kind or labels differ), so they cannot be compared"
            )
    fits = task.loss in ("single", "multi", "regression")
    if fits and not train and len(directories) == 1:
        raise OptionError("one model needs a baseline, fitted on the texts that it was trained on: give --train FILE")
    task.check(test)
    references = [example.reference for example in test if example.reference is not None]
    baselines, notes = dict[str, dict[str, Any]](), list[str]()
    if fits and train:
        task.check(train)
        baselines, notes = _baselines(task, train, model_directories[0].facts, base, seed)
    names, titles = [*baselines, *map(str, directories)], [*baselines, *short_names(directories)]
    _row_of(against, names, titles, 0)  # raises before the measurements, which take minutes
    measured = []
    for name, title in zip(list(names), list(titles), strict=True):
        reporter.say(f"measuring {title}")
        try:
            measured.append(in_process(baselines.get(name, {"model": name}), test))
        except BothwaysError as error:
            if "base" not in baselines.get(name, {}).get("baseline", {}):
                raise
            notes.append(f"{LEFT_OUT}: {error}.")
            names.remove(name)
            titles.remove(title)
    right = [
        [task.is_correct(one, reference) for one, reference in zip(each["predictions"], references, strict=True)]
        for each in measured
    ]
    first_model = len(names) - len(directories)
    facts = [*([{}] * first_model), *(model_directory.facts for model_directory in model_directories)]
    scores = [task.score(each["predictions"], references, rng=np.random.default_rng(seed)) for each in measured]
    best = max(
        range(first_model or 1), key=lambda place: np.nan_to_num(scores[place].metrics[task.headline].value, nan=-1.0)
    )
    against_row = _row_of(against, names, titles, best)
    rows = []
    for place, (name, title, found) in enumerate(zip(names, titles, measured, strict=True)):
        predictions = tuple(found.pop("predictions"))
        p = (
            mcnemar(right[place], right[against_row])
            if task.loss in ("single", "spans") and place != against_row
            else None
        )
        rows.append(Contender(name, title, scores[place], predictions, p, **found, facts=facts[place]))
    compared = range(0 if against_row >= first_model else first_model, len(rows))
    pairs = [(against_row, place) for place in compared if place != against_row]
    if against is None and first_model:
        pairs += [(first_model, place) for place in range(first_model + 1, len(rows))]
    verdicts = []
    for first, second in pairs:
        row = rows[second]
        if first != against_row and row.p is not None:
            row = replace(row, p=mcnemar(right[second], right[first]))
        verdicts.append(verdict(task, rows[first], row, references, seed, dev=dev))
    notes = [*cautions(task, rows[-1].predictions, references), *notes]
    nothing = collapsed(task, rows[against_row].predictions, references)
    notes += [f"{rows[against_row].title} {nothing}."] if nothing else []
    if dev:
        notes.insert(0, caveat(task, rows, exported=(directories[-1] / FOLDER / EXPORT).is_file()))
    for note in notes:
        reporter.note(note)
    return Comparison(task, tuple(rows), tuple(verdicts), against_row, tuple(notes))


def _baselines(
    task: Trainable, train: Sequence[Example], facts: Mapping[str, Any], base: Path | None, seed: int
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the request to `measure` for each baseline by name, and notes."""
    balanced = facts.get("recipe", {}).get("class_weights", "none") == "balanced"
    settings = {"kind": task.loss, "labels": task.labels, "seed": seed, "balanced": balanced}
    found = {BASELINE: {"baseline": settings | {"train": train}}}
    if len(task.labels) > MAX_LABELS:
        return found, [f"{LEFT_OUT}: it is for at most {MAX_LABELS:,} labels."]
    try:
        base = base or base_of(facts)
    except BothwaysError as error:
        return found, [f"{LEFT_OUT}: {error}."]
    drawn = sample(train, seed)
    name = f"{_name_of_base(facts, base)} embeddings + linear model"
    few = f"{name} is fitted on {len(drawn):,} of the {len(train):,} training examples, drawn at random."
    notes = [few] if len(drawn) < len(train) else []
    return found | {name: {"baseline": settings | {"train": drawn, "base": base}}}, notes


def base_of(facts: Mapping[str, Any]) -> Path:
    """Return the directory of the base of a fine-tuned model, from the facts in the model's directory.

    Raises `ModelNotFoundError` if the base is not on this machine or its weights differ.
    """
    name, revision = facts.get("base"), facts.get("base_revision")
    if not name:
        raise ModelNotFoundError("the model's directory does not name its base")
    if name.startswith(HUB) and revision and "@" not in name:
        name = f"{name}@{revision}"
    directory = find_model(name, offline=True)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise ModelNotFoundError(f"{directory} has no {WEIGHTS}")
    with weights.open("rb") as file:
        if facts.get("base_sha256") != hashlib.file_digest(file, "sha256").hexdigest():
            raise ModelNotFoundError(f"the weights in {directory} are not those that the model was fine-tuned from")
    return directory


def _name_of_base(facts: Mapping[str, Any], base: Path) -> str:
    return str(facts.get("base") or base.name).removeprefix(HUB)


def short_names(directories: Sequence[Path]) -> list[str]:
    """Return the shortest trailing parts of paths that are unique.

    >>> short_names([Path("runs/a/best"), Path("runs/b/best")])
    ['a/best', 'b/best']
    """
    parts = [directory.resolve().parts[1:] or ("/",) for directory in directories]
    for length in range(1, max(map(len, parts)) + 1):
        tails = ["/".join(each[-length:]) for each in parts]
        if len(set(tails)) == len(set(parts)):
            break
    return tails


def _row_of(against: str | None, names: Sequence[str], titles: Sequence[str], best: int) -> int:
    """Return the reference row; `best` is the row of the best baseline or the first model."""
    if against is None or (against == "baseline" and names[0] == BASELINE):
        return best
    found = [place for place, pair in enumerate(zip(names, titles, strict=True)) if against in pair]
    found = found or [place for place, name in enumerate(names) if Path(name).resolve() == Path(against).resolve()]
    if not found:
        raise OptionError(f"{against!r} is not one of the compared models: {', '.join(names)}")
    return found[0]


def _question(task: Trainable) -> tuple[str, str, frozenset[str]]:
    return task.name, task.loss, frozenset(task.labels)
