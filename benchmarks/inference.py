"""Classifying texts against `transformers` and the raw engines: from raw text to label, in one run and one table.

    python benchmarks/inference.py --short SST2.tsv --long IMDB.jsonl.xz [--shapes bert-base,minilm-l6]
        [--texts short,long] [--methods ours,onnxruntime] [--rounds 3] [--count 200,20] [--model DIR] [--json FILE]

Tokenising is timed, loading is not. Each method is a process of its own that stays warm while the rounds go over
all methods in rotating order; only one computes at a time. Rates are of real tokens, padding not counted, so that
the slowest method may read every fourth text only (of every length). Speed does not depend on the weights: shapes
get random ones, and a random head under which about half of the texts fall on either side, so that agreement with
the fp32 reference is a hard test (a trained head has wider margins). MiniLM-L6 has its published weights.
Run it on an idle machine. Needs the `train` and `dev` extras and benchmarks/requirements.txt; sentence-transformers'
engines need an older transformers, so they run under `--sbert-python`, an interpreter of another environment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rivals import DEFAULT, LABELS, METHODS, OURS, REFERENCE, SEED, UNTUNED, Job

COLD_STARTS = 5
COLD_TEXT = "a gorgeous , witty , seductive movie ."


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of the catalogue, and how many short and long texts fill some seconds with it."""

    base: str
    short: int
    long: int


SHAPES = {
    "bert-base": Shape("bert-base-uncased", 320, 32),
    "bert-large": Shape("bert-large-uncased", 96, 10),
    "distilbert": Shape("distilbert-base-uncased", 480, 48),
    "albert-base": Shape("albert-base-v2", 320, 32),
    "roberta-base": Shape("roberta-base", 320, 32),
    "minilm-l6": Shape("minilm-l6", 872, 96),
}


class Child:
    """A process of `rivals.py` that does one thing at a time."""

    def __init__(self, python: str, threads: int, log: Path) -> None:
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "OMP_NUM_THREADS": str(threads)}
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(Path(__file__).with_name("rivals.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | offline,
        )

    def ask(self, do: str, **order: Any) -> Any:
        """Send an order and wait for its answer; raises RuntimeError with the reason if it fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        try:
            self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            said = Path(self.log.name).read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the process ended with status {self.process.wait()} {' '.join(said)[:300]}".strip())
        answer = json.loads(line)
        if answer and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@dataclass(frozen=True, slots=True)
class Bench:
    """What one run was asked for."""

    options: argparse.Namespace
    texts: dict[str, list[str]]

    def child(self, log: Path, method: str = "") -> Child:
        """A process for a method, of the interpreter that has its library."""
        other = self.options.sbert_python if method.startswith("sentence-transformers") else None
        return Child(other or sys.executable, self.options.threads, log)

    def once(self, work: Path, do: str, job: Job) -> Any:
        """Let a fresh process do one thing."""
        child = self.child(work / "once.log", do)
        try:
            return child.ask(do, job=job)
        finally:
            child.close()

    def shape(self, name: str, work: Path) -> dict[str, Any]:
        """Measure all methods with one model: {"cells": {kind: {method: row}}, "parameters", "cold"}."""
        shape, options = SHAPES[name], self.options
        counts = options.count or (shape.short, shape.long)
        texts = {kind: self.texts[kind][: counts[kind == "long"]] for kind in self.texts}
        directory = work / "model"
        if options.model:
            shutil.copytree(options.model, directory)
        directory.mkdir(exist_ok=True)
        job: Job = {"directory": str(directory), "work": str(work), "texts": texts, "threads": options.threads}
        job |= {"base": shape.base, "given": bool(options.model)}
        facts = self.once(work, "build", job)
        reasons: dict[str, str] = {}
        children: dict[str, Child] = {}
        rows: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in texts}
        chosen = {kind: chosen_texts(facts["lengths"][kind]) for kind in texts}
        done: dict[Any, str] = {}  # why a preparation failed, "" if it did not
        try:
            for method in options.methods:
                say(f"{name}: {method}: making ready")
                spec = METHODS[method]
                own = {kind: [texts[kind][one] for one in chosen[kind][spec.every]] for kind in texts}
                try:
                    if spec.prepare and spec.prepare not in done:
                        done[spec.prepare] = "preparation was interrupted"
                        try:
                            self.once(work, method, job)
                            done[spec.prepare] = ""
                        except RuntimeError as error:
                            done[spec.prepare] = str(error)
                    if spec.prepare and done[spec.prepare]:
                        raise RuntimeError(done[spec.prepare])  # noqa: TRY301
                    children[method] = self.child(work / f"{len(children)}.log", method)
                    said = children[method].ask("open", job=job | {"texts": own}, method=method)
                except RuntimeError as error:
                    reasons[method] = str(error)
                    if method in children:
                        children.pop(method).close()
                    continue
                for kind in texts:
                    rows[kind][method] = {"precision": said["precision"], "rates": [], "of": chosen[kind][spec.every]}
            for turn in range(options.rounds):
                for kind in texts:
                    order = list(children)
                    for method in order[turn % len(order) :] + order[: turn % len(order)]:
                        say(f"{name}: {kind}: round {turn + 1}: {method}")
                        self.measure(children[method], kind, rows[kind][method], facts["lengths"][kind])
        finally:
            for child in children.values():
                child.close()
        cold = {who: cold_start(who, str(directory), options.cold) for who in (DEFAULT, OURS) if options.cold}
        lengths = facts.pop("lengths")
        return {"cells": rows, "not_run": reasons, "cold": cold, "lengths": lengths, **facts}

    def measure(self, child: Child, kind: str, row: dict[str, Any], lengths: list[int]) -> None:
        """One round of one method in one cell."""
        answer = child.ask("measure", kind=kind, seconds=self.options.seconds)
        row["rates"].append(sum(lengths[one] for one in row["of"]) / answer["seconds"])
        row["labels"], row["megabytes"] = answer["labels"], answer["megabytes"]


def chosen_texts(lengths: list[int]) -> dict[int, list[int]]:
    """Which texts are read by whoever reads every so-manyth: spread over the lengths, in their first order."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    steps = {one.every for one in METHODS.values()}
    return {step: sorted(order[step // 2 :: step] or order) for step in steps}


def cold_start(who: str, directory: str, times: int) -> dict[str, Any]:
    """Seconds and peak MB of fresh processes from their start to one answer: medians."""
    script = f"from transformers import pipeline; print(pipeline('text-classification', {directory!r})({COLD_TEXT!r}))"
    theirs, ours = ["-c", script], ["-m", "bothways", "predict", directory, COLD_TEXT]
    seconds, megabytes = [], []
    for _ in range(times):
        command = [sys.executable, "-W", "ignore", *(ours if who == OURS else theirs)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            return {"error": (said.strip().splitlines() or ["no message"])[-1]}
        seconds.append(time.perf_counter() - began)
        megabytes.append(usage.ru_maxrss / 1024)
    return {"seconds": statistics.median(seconds), "megabytes": statistics.median(megabytes)}


def flops(result: dict[str, Any], lengths: list[int]) -> float:
    """Operations that a real token needs: two for each multiply-add of the linear layers and of attention."""
    linear = 4 * result["hidden"] ** 2 + 2 * result["hidden"] * result["inner"]
    seen = sum(length * length for length in lengths) / sum(lengths)  # how many tokens a token looks at
    return 2 * result["layers"] * (linear + 2 * seen * result["hidden"])


def agreement(row: dict[str, Any], reference: dict[str, Any] | None) -> float | None:
    """The share of a method's texts that the fp32 reference labels alike."""
    if reference is None:
        return None
    theirs = dict(zip(reference["of"], reference["labels"], strict=True))
    pairs = [(theirs[one], label) for one, label in zip(row["of"], row["labels"], strict=True) if one in theirs]
    return sum(a == b for a, b in pairs) / len(pairs)


def print_cell(name: str, kind: str, result: dict[str, Any], peak: float | None) -> None:
    """One table: a row for each method that was asked for, whether it ran or not."""
    rows, lengths = result["cells"][kind], result["lengths"][kind]
    mean, need = sum(lengths) / len(lengths), flops(result, lengths)
    middle = {method: statistics.median(row["rates"]) for method, row in rows.items()}
    best = max((rate for method, rate in middle.items() if METHODS[method].raw), default=None)
    positive = [label for row in (rows.get(REFERENCE),) if row for label in row["labels"]]
    split = f", {100 * sum(positive) / len(positive):.0f} % of them {LABELS[1]}" if positive else ""
    print(f"\n### {name}, {kind} texts ({len(lengths)} texts, mean {mean:.0f} tokens{split})\n")
    heads = ["method", "precision", "threads", "texts/s", "tokens/s", "spread", "x default", "x best raw engine"]
    heads += ["of int8 peak", "same label as fp32", "peak MB"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for method, row in rows.items():
        rate, against = middle[method], [middle.get(DEFAULT), best]
        spread = (max(row["rates"]) - min(row["rates"])) / rate / 2
        ratios = [f"{rate / one:.2f}" if one else "-" for one in against]
        same = agreement(row, rows.get(REFERENCE))
        cells = [method, row["precision"], METHODS[method].threads, f"{rate / mean:,.1f}", f"{rate:,.0f}"]
        cells += [f"±{100 * spread:.0f} %", *ratios, f"{100 * rate * need / peak / 1e9:.0f} %" if peak else "-"]
        cells += ["-" if same is None else f"{100 * same:.1f} %", f"{row['megabytes']:.0f}"]
        print("| " + " | ".join(cells) + " |")
    for method, reason in result["not_run"].items():
        print(
            f"| {method} | {METHODS[method].precision} | not run: {reason.replace('|', '/')} |"
            + " |" * (len(heads) - 3)
        )
    sys.stdout.flush()


def print_summary(results: dict[str, Any], kinds: Sequence[str]) -> None:
    """Cold starts, and how fast the models are beside each other with our engine."""
    print("\n| cold start to one answer | method | seconds | peak MB |\n|---|---|---|---|")
    for name, result in results.items():
        for who, cold in result["cold"].items():
            if "error" in cold:
                print(f"| {name} | {who} | not run: {cold['error']} | |")
            else:
                print(f"| {name} | {who} | {cold['seconds']:.2f} | {cold['megabytes']:.0f} |")
    for kind in kinds:
        speeds = {}
        for name, result in results.items():
            cells, lengths = result["cells"][kind], result["lengths"][kind]
            row = cells.get(OURS) or cells.get(UNTUNED)
            if row:
                speeds[name] = statistics.median(row["rates"]) * len(lengths) / sum(lengths)
        if not speeds:
            continue
        base = "bert-base" if "bert-base" in speeds else next(iter(speeds))
        print(f"\n| model, {kind} texts | parameters | relative speed | texts/s |\n|---|---|---|---|")
        for name, speed in speeds.items():
            millions = results[name]["parameters"] / 1e6
            print(f"| {name} | {millions:.0f}M | {speed / speeds[base]:.1f}x | {speed:,.1f} |")


def read_texts(path: Path) -> list[str]:
    """All texts of a file, shuffled with a fixed seed."""
    import random

    from bothways.data.tables import Columns
    from bothways.tasks import TRAINED

    texts = [example.texts[0] for example in TRAINED["classify"].read(str(path), Columns())]
    random.Random(SEED).shuffle(texts)
    return texts


def machine(threads: int) -> dict[str, Any]:
    """Processor, load and versions, as they stand beside every figure."""
    from importlib.metadata import PackageNotFoundError, version

    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    versions = {"python": platform.python_version()}
    for package in (
        "torch",
        "transformers",
        "tokenizers",
        "onnxruntime",
        "openvino",
        "nncf",
        "ctranslate2",
        "bothways",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    processor = names[0] if names else platform.machine()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load": os.getloadavg(),
    } | versions


def say(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def names_from(known: dict[str, Any]) -> Callable[[str], list[str]]:
    """A reader of names with commas between; a beginning of names stands for all of them."""

    def read(given: str) -> list[str]:
        parts = [part.strip() for part in given.split(",")]
        for part in parts:
            if not any(name.startswith(part) for name in known):
                raise argparse.ArgumentTypeError(f"{part!r} is not one of {'; '.join(known)}")
        return [name for name in known if name in parts or any(name.startswith(part) for part in parts)]

    return read


def main() -> None:
    """Measure what was asked for, print the tables, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=Path, help="a table of short texts with labels, such as SST-2's dev.tsv")
    parser.add_argument("--long", type=Path, help="a table of long texts with labels, such as IMDB's train.jsonl")
    parser.add_argument("--shapes", type=names_from(SHAPES), default=list(SHAPES))
    parser.add_argument("--texts", default="short,long", help="which of both to measure")
    parser.add_argument("--methods", type=lambda given: re.split(r";", given), help="beginnings of names, ; between")
    parser.add_argument("--model", type=Path, help="a fine-tuned directory with the labels negative and positive")
    parser.add_argument("--count", type=lambda given: [int(one) for one in given.split(",")], help="texts: SHORT,LONG")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="the least time that a round takes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cold", type=int, default=COLD_STARTS, help="how many cold starts; 0 for none")
    parser.add_argument("--sbert-python", help="an interpreter with sentence-transformers[onnx,openvino]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    beginnings = options.methods or [""]
    options.methods = [name for name in METHODS if any(name.startswith(one.strip()) for one in beginnings)]
    kinds = options.texts.split(",")
    for kind in kinds:
        if kind not in ("short", "long"):
            parser.error(f"--texts: {kind!r} is not one of short, long")
        if getattr(options, kind) is None:
            parser.error(f"--{kind} FILE is needed for {kind} texts (or leave them out with --texts)")
    if options.model and len(options.shapes) != 1:
        parser.error("--model needs the one shape that it has, as in --shapes minilm-l6")
    bench = Bench(options, {kind: read_texts(getattr(options, kind)) for kind in kinds})
    facts = machine(options.threads)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    results: dict[str, Any] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            peaks = bench.once(Path(folder), "peaks", {"threads": options.threads})
            print("GEMM 2048x768x3072, GFLOP/s:", ", ".join(f"{name} {rate:,.0f}" for name, rate in peaks.items()))
        except RuntimeError as error:
            print(f"GEMM peak: not run: {error}")
        for name in options.shapes:
            work = Path(folder) / name
            work.mkdir()
            results[name] = bench.shape(name, work)
            for kind in kinds:
                print_cell(name, kind, results[name], peaks.get("int8"))
    print_summary(results, kinds)
    print(f"\nload at the end {os.getloadavg()[0]:.2f}")
    if options.json:
        report = {"machine": facts, "gemm": peaks, "load_end": os.getloadavg(), "shapes": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
