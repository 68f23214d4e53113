"""Models side by side on the same texts, classifiers with the TF-IDF baseline: quality, speed, size, memory.

Each one is measured in a process of its own, so that its memory and its speed are its own too.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.analysis.verdicts import Contender, cautions, caveat, collapsed, verdict
from bothways.errors import BothwaysError, OptionError
from bothways.metrics import mcnemar
from bothways.runtime.artifact import Artifact
from bothways.runtime.exports import EXPORT, FOLDER
from bothways.tasks import Trainable, scored
from bothways.tasks.task import Example
from bothways.terminal import Reporter

BASELINE = "TF-IDF + linear model"
ENOUGH_SECONDS = 6.0  # of passes over the same texts
WARM_TEXTS = 64  # predicted once before the clock starts


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, the row that the others are held against, for each of these whether it is better, in a sentence, and
    what a reader should know of the figures.
    """

    task: Trainable
    rows: tuple[Contender, ...]
    verdicts: tuple[str, ...]
    reference: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows = (f"{row.title} {row.metrics[self.task.headline].value:.3f}" for row in self.rows)
        return f"<Comparison on {len(self.rows[0].predictions):,} examples, {self.task.headline}: {', '.join(rows)}>"

    @property
    def against(self) -> Contender:
        """The row that p and the verdicts are about besides their own."""
        return self.rows[self.reference]

    @property
    def tested(self) -> str | None:
        """The metric that McNemar's p is about, if there is a p."""
        named = {"single": "accuracy", "spans": "exact_match"}
        return named.get(self.task.loss) if any(row.p is not None for row in self.rows) else None

    def as_json(self) -> dict[str, Any]:
        """The table and the sentences."""
        return {
            "task": self.task.name,
            "n": len(self.rows[0].predictions),
            "against": self.against.name,
            "p_is_of": self.tested,
            "rows": [row.as_json() for row in self.rows],
            "verdicts": list(self.verdicts),
            "notes": list(self.notes),
        }


def compare(
    test: Sequence[Example],
    directories: Sequence[Path],
    train: Sequence[Example] = (),
    *,
    against: str | None = None,
    dev: bool = False,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measure the models in `directories` on `test`, and if there is `train` and they give classes or numbers, first of
    all the baseline, fitted on it.

    Each is held against the first row, or against the one called `against`: "baseline", a directory or its last part;
    without it, also against the first model. `dev` says that `test` also chose their checkpoints.

    Raises `OptionError` if the models do not answer the same question, or there is nothing to compare a model with.
    """
    reporter = reporter or Reporter(quiet=True)
    if not directories:
        raise OptionError("no model to compare; expected at least one directory")
    artifacts = [Artifact.read(directory) for directory in directories]
    task = scored(artifacts[0].task)
    for artifact in artifacts[1:]:
        if _question(scored(artifact.task)) != _question(task):
            raise OptionError(
                f"{artifact.directory} and {artifacts[0].directory} answer different questions "
                "(task, kind or labels differ), so they cannot be compared"
            )
    fits = task.loss in ("single", "multi", "regression")
    if fits and not train and len(directories) == 1:
        raise OptionError("one model needs a baseline, fitted on the texts that it was trained on: give --train FILE")
    task.check(test)
    golds = [example.gold for example in test if example.gold is not None]
    names = [*([BASELINE] if fits and train else []), *map(str, directories)]
    titles = [*([BASELINE] if fits and train else []), *short_names(directories)]
    reference = _reference(against, names, titles)
    requests: list[dict[str, Any]] = [{"model": name} for name in names]
    if fits and train:
        task.check(train)
        weights = artifacts[0].facts.get("recipe", {}).get("class_weights", "none")
        settings = {"train": train, "kind": task.loss, "labels": task.labels, "seed": seed}
        requests[0] = {"baseline": settings | {"balanced": weights == "balanced"}}
    measured = []
    for title, request in zip(titles, requests, strict=True):
        reporter.say(f"measuring {title}")
        measured.append(in_process(request, test))
    right = [[task.right(one, gold) for one, gold in zip(each["predictions"], golds, strict=True)] for each in measured]
    facts = [*([{}] if len(names) > len(artifacts) else []), *(artifact.facts for artifact in artifacts)]
    rows = []
    for place, (name, title, found) in enumerate(zip(names, titles, measured, strict=True)):
        predictions = tuple(found.pop("predictions"))
        scores = task.score(predictions, golds, rng=np.random.default_rng(seed))
        p = mcnemar(right[place], right[reference]) if task.loss in ("single", "spans") and place != reference else None
        rows.append(Contender(name, title, scores, predictions, p, **found, facts=facts[place]))
    pairs = [(reference, place) for place in range(len(rows)) if place != reference]
    first_model = len(names) - len(directories)
    if against is None and first_model:
        pairs += [(first_model, place) for place in range(first_model + 1, len(rows))]
    verdicts = []
    for first, second in pairs:
        row = rows[second]
        if first != reference and row.p is not None:
            row = replace(row, p=mcnemar(right[second], right[first]))
        verdicts.append(verdict(task, rows[first], row, golds, seed, dev=dev))
    notes = cautions(task, rows[-1].predictions, golds)
    nothing = collapsed(task, rows[reference].predictions, golds)
    notes += [f"{rows[reference].title} {nothing}."] if nothing else []
    if dev:
        notes.insert(0, caveat(task, rows, exported=(directories[-1] / FOLDER / EXPORT).is_file()))
    for note in notes:
        reporter.note(note)
    return Comparison(task, tuple(rows), tuple(verdicts), reference, tuple(notes))


def short_names(directories: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell different ones apart.

    >>> short_names([Path("runs/a/best"), Path("runs/b/best")])
    ['a/best', 'b/best']
    """
    parts = [directory.resolve().parts[1:] or ("/",) for directory in directories]
    for length in range(1, max(map(len, parts)) + 1):
        tails = ["/".join(each[-length:]) for each in parts]
        if len(set(tails)) == len(set(parts)):
            break
    return tails


def _reference(against: str | None, names: Sequence[str], titles: Sequence[str]) -> int:
    if against is None:
        return 0
    if against == "baseline" and names[0] == BASELINE:
        return 0
    found = [place for place, pair in enumerate(zip(names, titles, strict=True)) if against in pair]
    found = found or [place for place, name in enumerate(names) if Path(name).resolve() == Path(against).resolve()]
    if not found:
        raise OptionError(f"{against!r} is not one of the compared models: {', '.join(names)}")
    return found[0]


def _question(task: Trainable) -> tuple[str, str, frozenset[str]]:
    return task.name, task.loss, frozenset(task.labels)


def in_process(what: dict[str, Any], test: Sequence[Example]) -> dict[str, Any]:
    """Run `measure` on `what` in a new Python; its answer, or its error as ours."""
    with tempfile.TemporaryDirectory() as folder:
        # Pickles, for nobody else can put anything into the folder between writing and reading.
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        request.write_bytes(pickle.dumps(what | {"test": list(test)}))
        command = [sys.executable, "-P", "-m", "bothways.analysis.compare", str(request), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 2:
            raise BothwaysError(done.stderr.strip().splitlines()[-1])
        if done.returncode < 0:
            raise BothwaysError(f"the process that measures was ended by signal {-done.returncode}; was memory short?")
        if done.returncode:
            raise RuntimeError(f"measuring failed:\n{done.stderr}")
        result: dict[str, Any] = pickle.loads(answer.read_bytes())
        return result


def measure(what: dict[str, Any]) -> dict[str, Any]:
    """Predict the texts of a request, timed: predictions, texts a second, parameters, disk, peak memory.

    With "passes" so often, unless that takes long, and the fastest counts: an engine that compiles for each new shape
    is slow the first time.
    """
    test: list[Example] = what["test"]
    if "baseline" in what:
        from bothways.analysis.baseline import fit_baseline

        settings = what["baseline"]
        model = fit_baseline(settings.pop("train"), **settings)
        parameters, disk, predict, engine = model.parameters, model.size_bytes, model.predict, "scikit-learn"
    else:
        from bothways.predictor import load

        predictor = load(what["model"], task=what.get("task"), plan=what.get("plan"))
        artifact, weights = predictor.artifact, predictor.engine.weights
        assert artifact is not None
        files = [*artifact.files(), *([] if weights is None else [weights])]
        parameters, disk = predictor.engine.parameters, sum(path.stat().st_size for path in files)
        predict, engine = predictor.predict_examples, predictor.engine.describe()
    predict(test[:WARM_TEXTS])
    times: list[float] = []
    while not times or (len(times) < what.get("passes", 1) and sum(times) < ENOUGH_SECONDS):
        began = time.perf_counter()
        predictions = predict(test)
        times.append(time.perf_counter() - began)
    seconds = min(times)
    return {
        "predictions": predictions,
        "texts_per_second": len(test) / seconds,
        "parameters": parameters,
        "disk": disk,
        "memory": peak_memory(),
        "engine": engine,
    }


def peak_memory() -> int:
    """The peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the parent that this process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Answer one request: the path of a request file, the path for the answer."""
    request, answer = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = measure(pickle.loads(request.read_bytes()))
    except BothwaysError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    answer.write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
