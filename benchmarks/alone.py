"""Whether an answer depends on the texts around it: each text alone, all in one call, and both against PyTorch in fp32.

    python benchmarks/alone.py MODEL TEXTS [--task embed] [--engine onnxruntime] [--precision int8] [--count 872]

MODEL is a model directory with an exported ONNX model, TEXTS a file that `bothways predict` reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.data.tables import Columns
from bothways.inference.predictor import load

SAME_COSINE = 0.99  # of two vectors that count as the same answer


def compared(first: Sequence[Any], second: Sequence[Any]) -> str:
    """How much the answers of two runs differ."""
    if hasattr(first[0], "vector"):
        pairs = [(one.vector, other.vector) for one, other in zip(first, second, strict=True)]
        cosines = np.array([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs])
        low = 100 * np.mean(cosines < SAME_COSINE)
        return f"cosine {cosines.mean():.4f}, least {cosines.min():.4f}, {low:.1f} % below {SAME_COSINE}"
    changed = sum(one.label != other.label for one, other in zip(first, second, strict=True))
    scores = [
        max(abs(one.scores[label] - other.scores[label]) for label in one.scores)
        for one, other in zip(first, second, strict=True)
    ]
    return f"{changed} of {len(first):,} labels differ, scores by {np.mean(scores):.4f}, at most {max(scores):.4f}"


def main() -> None:
    """Print the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--task")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--count", type=int, default=872)
    options = parser.parse_args()
    model = load(options.model, task=options.task, engine=options.engine, precision=options.precision)
    reference = load(options.model, task=options.task, engine="torch", precision="fp32")
    examples = model.task.read(options.texts, Columns(), labeled=False)[: options.count]
    together = model.predict_examples(examples)
    alone = [model.predict_examples([example])[0] for example in examples]
    expected = reference.predict_examples(examples)
    print(f"{model.engine.describe()}, {len(examples):,} texts")
    print(f"alone and together   {compared(alone, together)}")
    print(f"together and fp32    {compared(together, expected)}")
    print(f"alone and fp32       {compared(alone, expected)}")


if __name__ == "__main__":
    main()
