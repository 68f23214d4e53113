"""Speed of the included models: time to the first answer in a new process, latency of one text, throughput of many.

    python benchmarks/included.py DATA [--runs 5]

DATA is the folder of data sets: SST-2, CoNLL-2003, SQuAD and AG News dev, of each the first 500 texts. Texts of the
last two tasks are those of SST-2 with a word masked, and pairs of their halves. A new process imports bothways, makes
the pipeline and answers one text; its time includes starting Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bothways
from bothways.evaluation.summary import machine

COUNT = 500
COLD = """
import sys, json, time
start = time.perf_counter()
import bothways
task, given, options = json.loads(sys.argv[1])
bothways.pipeline(task)(tuple(given) if isinstance(given, list) else given, **options)
print(time.perf_counter() - start)
"""
LABELS = {"candidate_labels": ["World", "Sports", "Business", "Sci/Tech"]}


def inputs(data: Path) -> dict[str, tuple[list[Any], dict[str, Any]]]:
    """The pipelines, their texts and options."""
    sst2 = [line.rsplit("\t", 1)[0] for line in (data / "sst2/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    rows = [line for line in (data / "conll2003/dev.txt").read_text(encoding="utf-8").split("\n\n") if line]
    conll = [" ".join(line.split(" ")[0] for line in row.split("\n")) for row in rows if "DOCSTART" not in row]
    agnews = (data / "zero_shot/agnews_dev.jsonl").read_text(encoding="utf-8").splitlines()
    articles = json.loads((data / "squad/dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    asked = [
        {"question": question["question"], "context": paragraph["context"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    masked = [" ".join(["[MASK]", *text.split(" ")[1:]]) for text in sst2]
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in sst2 if len(text) > 20]
    return {
        "sentiment-analysis": (sst2[:COUNT], {}),
        "ner": (conll[:COUNT], {}),
        "question-answering": (asked[:COUNT], {}),
        "zero-shot-classification": ([json.loads(line)["text"] for line in agnews[:COUNT]], LABELS),
        "fill-mask": (masked[:COUNT], {}),
        "next-sentence-prediction": (halves[:COUNT], {}),
    }


def main() -> None:
    """Print one row for each pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print(f"{machine()}; median of {given.runs} new processes; latency: median of 100 texts, one after the other")
    print("| pipeline | new process to first answer, s | of it from `import bothways` on, s | latency, ms | texts/s |")
    print("|---|---|---|---|---|")
    for task, (texts, options) in inputs(given.data).items():
        whole, own = [], []
        for _ in range(given.runs):
            start = time.perf_counter()
            command = [sys.executable, "-c", COLD, json.dumps((task, texts[0], options))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            whole.append(time.perf_counter() - start)
            own.append(float(done.stdout))
        pipe = bothways.pipeline(task)
        pipe(texts[:50], **options)
        single = []
        for text in texts[:100]:
            start = time.perf_counter()
            pipe(text, **options)
            single.append(time.perf_counter() - start)
        start = time.perf_counter()
        pipe(texts, **options)
        rate = len(texts) / (time.perf_counter() - start)
        cells = (statistics.median(whole), statistics.median(own), 1000 * statistics.median(single), rate)
        print(f"| {task} | {cells[0]:.2f} | {cells[1]:.2f} | {cells[2]:.1f} | {cells[3]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
