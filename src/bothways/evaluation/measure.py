"""Measures a model or a baseline in a separate process: predictions, speed, size, memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bothways.data.examples import Example
from bothways.errors import BothwaysError

ENOUGH_SECONDS = 6.0  # of passes over the same texts


WARM_TEXTS = 64  # predicted once before the clock starts


def in_process(what: dict[str, Any], test: Sequence[Example]) -> dict[str, Any]:
    """Run `measure` on `what` in a new Python; its answer, or its error as ours."""
    with tempfile.TemporaryDirectory() as folder:
        # Pickles are safe here: nobody else can put anything into the folder between writing and reading.
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        request.write_bytes(pickle.dumps(what | {"test": list(test)}))
        command = [sys.executable, "-P", "-m", "bothways.evaluation.measure", str(request), str(answer)]
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
        from bothways.evaluation.baseline import fit_baseline

        settings = what["baseline"]
        model = fit_baseline(settings.pop("train"), **settings)
        parameters, disk, predict, engine = model.parameters, model.size_bytes, model.predict, model.features.engine
    else:
        from bothways.inference.predictor import load

        predictor = load(what["model"], task=what.get("task"), plan=what.get("plan"))
        model_directory, weights = predictor.model_directory, predictor.engine.weights
        assert model_directory is not None
        files = [*model_directory.files(), *([] if weights is None else [weights])]
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
