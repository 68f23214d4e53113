"""Measures a model or a baseline in a separate process: predictions, speed, size, memory, cold start."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bothways.data.examples import Example
from bothways.errors import BothwaysError
from bothways.progress import Reporter

ENOUGH_SECONDS = 6.0  # for repeated passes over the texts
WARM_TEXTS = 64  # predicted as a warm-up
ENOUGH_CHARACTERS = 40_000  # to time a group with: a few batches do not represent a long file
ONE_BY_ONE = 100  # texts to time individually; the latency is their median
ONE_BY_ONE_SECONDS = 2.0  # time limit; fewer texts are timed if it is reached


def in_process(what: dict[str, Any], test: Sequence[Example]) -> dict[str, Any]:
    """Run `measure` on `what` in a new Python process; return its result, or raise its error as `BothwaysError`."""
    with tempfile.TemporaryDirectory() as folder:
        # Pickles are safe here: no other user can write to the folder.
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        request.write_bytes(pickle.dumps(what | {"test": list(test)}))
        command = [sys.executable, "-P", "-m", "bothways.evaluation.measure", str(request), str(answer)]
        command.append(repr(time.time()))  # the only clock that processes share on every system
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 2:
            raise BothwaysError(done.stderr.strip().splitlines()[-1])
        if done.returncode < 0:
            raise BothwaysError(f"the benchmark process was killed by signal {-done.returncode} (out of memory?)")
        if done.returncode:
            raise RuntimeError(f"measuring failed:\n{done.stderr}")
        result: dict[str, Any] = pickle.loads(answer.read_bytes())
        return result


def measure(what: dict[str, Any]) -> dict[str, Any]:
    """Predict the texts of a request and measure texts/s, parameters, disk, peak memory and the engine.

    With "compile" (a plan), only compile its layers.

    "passes" is the maximum number of passes within the time limit; the fastest counts, since an engine that compiles
    for each new shape is slow at first.

    With "groups" (lists of text indices), time each group separately, in batches and one text at a time. The result
    "groups" has (texts/s, median milliseconds of one text) per group, "milliseconds" the overall median, "cold_start"
    the seconds from "started", the start of this process, to the first prediction.
    """
    if "compile" in what:
        from bothways.inference.model_directory import ModelDirectory
        from bothways.inference.plan_files import compile_plan

        compile_plan(ModelDirectory.read(Path(what["model"]), what["task"]), what["compile"], Reporter(quiet=True))
        return {}
    test: list[Example] = what["test"]
    found: dict[str, Any] = {}
    if "baseline" in what:
        from bothways.evaluation.baseline import fit_baseline

        settings = what["baseline"]
        model = fit_baseline(settings.pop("train"), **settings)
        parameters, disk, predict = model.parameters, model.size_bytes, model.predict
        describe: Callable[[], str] = partial(str, model.features.engine)
    else:
        from bothways.inference.predictor import load

        predictor = load(what["model"], task=what.get("task"), plan=what.get("plan"))
        model_directory, weights = predictor.model_directory, predictor.engine.weights
        assert model_directory is not None
        files = [*model_directory.files(), *([] if weights is None else [weights])]
        parameters, disk = predictor.engine.parameters, sum(path.stat().st_size for path in files)
        predict, describe = predictor.predict_examples, predictor.engine.describe
        if "groups" in what:
            predict(test[:1])
            found["cold_start"] = time.time() - what["started"]
    groups = what.get("groups") or [range(len(test))]
    predictions: list[Any] = [None] * len(test)
    seconds: list[float] = []
    alone: list[list[float]] = []
    for group in groups:
        members = [test[place] for place in group]
        timed = _copied(members) if "groups" in what else members
        predict(members[:WARM_TEXTS])
        times: list[float] = []
        while not times or (len(times) < what.get("passes", 1) and sum(times) < ENOUGH_SECONDS / len(groups)):
            began = time.perf_counter()
            answers = predict(timed)
            times.append(time.perf_counter() - began)
        seconds.append(min(times) * len(members) / len(timed))
        for place, answer in zip(group, answers[: len(members)], strict=True):
            predictions[place] = answer
        if "groups" in what:
            alone.append(_one_by_one(predict, members, ONE_BY_ONE_SECONDS / len(groups)))
    if alone:
        found["milliseconds"] = median(time for times in alone for time in times)
        found["groups"] = [
            (len(group) / each, median(times)) for group, each, times in zip(groups, seconds, alone, strict=True)
        ]
    return found | {
        "predictions": predictions,
        "texts_per_second": len(test) / sum(seconds),
        "parameters": parameters,
        "disk": disk,
        "memory": peak_memory(),
        "engine": describe(),
    }


def _copied(examples: list[Example]) -> list[Example]:
    """Return the examples, repeated until they have `ENOUGH_CHARACTERS`.

    Each copy has one more trailing space, since equal texts are predicted only once; the tokens do not change.
    """
    characters = max(1, sum(len(text) for example in examples for text in example.texts))
    return [
        replace(example, texts=(*example.texts[:-1], example.texts[-1] + " " * copy))
        for copy in range(-(-ENOUGH_CHARACTERS // characters))
        for example in examples
    ]


def _one_by_one(predict: Callable[[list[Example]], Any], examples: list[Example], enough: float) -> list[float]:
    """Return the milliseconds of single predictions for evenly spaced examples, after a warm-up."""
    times: list[float] = []
    chosen = examples[:: -(-len(examples) // ONE_BY_ONE)]
    predict(chosen[:1])
    began = time.perf_counter()
    for example in chosen:
        start = time.perf_counter()
        predict([example])
        times.append(1000 * (time.perf_counter() - start))
        if time.perf_counter() - began > enough:
            break
    return times


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would include the parent process before exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Run one request; the arguments are the request file, the answer file and the start time of the process."""
    request, answer = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = measure(pickle.loads(request.read_bytes()) | {"started": float(sys.argv[3])})
    except BothwaysError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    answer.write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
