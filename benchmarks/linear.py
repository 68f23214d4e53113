"""Whether the cost of predicting is linear in the texts: 1,000, 10,000 and 100,000 of them, streamed from a generator.

python benchmarks/linear.py DIR TEXTS...     DIR is a model, TEXTS are files that hold 100,000 different texts together
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from bothways.data.tables import Columns
from bothways.evaluation.measure import peak_memory
from bothways.inference.predictor import load


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--text-column", default=None)
    options = parser.parse_args()
    predictor = load(options.model)

    def examples() -> Iterator[object]:
        seen = set()
        for path in options.texts:
            for example in predictor.task.read(path, Columns(text_column=options.text_column), labeled=False):
                if example.texts not in seen:
                    seen.add(example.texts)
                    yield example

    known = list(itertools.islice(examples(), 100_000))
    print(predictor.engine.describe())
    print("| texts | seconds | texts/s | more memory than before the first text, MB |\n|---|---|---|---|")
    list(predictor.stream(known[-1000:]))
    before = peak_memory()
    for size in (1_000, 10_000, 100_000):
        if size > len(known):
            print(f"only {len(known):,} different texts were given")
            break
        began = time.perf_counter()
        for _ in predictor.stream(iter(known[:: len(known) // size][:size])):
            pass
        seconds = time.perf_counter() - began
        print(f"| {size:,} | {seconds:.1f} | {size / seconds:,.0f} | {(peak_memory() - before) / 2**20:.0f} |")


if __name__ == "__main__":
    main()
