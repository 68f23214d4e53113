"""Whether the cost of predicting is linear in the texts: 1,000 to 300,000 of them, streamed from a generator.

python benchmarks/linear.py DIR TEXTS...     DIR is a model, TEXTS are files that hold 300,000 different texts together
"""

from __future__ import annotations

import argparse
import gc
import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from bothways.data.tables import Columns
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

    known = list(itertools.islice(examples(), 300_000))
    print(predictor.engine.describe())
    print(
        "| texts | seconds | texts/s | more memory than after 1,000 texts, MB: at the most, after |\n|---|---|---|---|"
    )
    list(predictor.stream(known[-1000:]))
    gc.collect()
    before = resident()
    for size in (1_000, 10_000, 100_000, 300_000):
        if size > len(known):
            print(f"only {len(known):,} different texts were given")
            break
        began = time.perf_counter()
        most = before
        for number, _ in enumerate(predictor.stream(iter(known[:: len(known) // size][:size]))):
            most = max(most, resident()) if number % 500 == 0 else most
        seconds = time.perf_counter() - began
        after = (resident() - before) / 2**20
        print(
            f"| {size:,} | {seconds:.1f} | {size / seconds:,.0f} | {(most - before) / 2**20:.0f}, {after:.0f} |",
            flush=True,
        )


def resident() -> int:
    """Bytes of this process that are in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
