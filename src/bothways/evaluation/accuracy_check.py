"""The accuracy gate: whether a quicker form of a model still answers as the model itself does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bothways.batch import Batch, budgeted, make_batch
from bothways.data.examples import Example
from bothways.errors import DataError
from bothways.hardware import cores
from bothways.inference.choice import open_engine
from bothways.inference.engines.engine import MAX_TOKENS
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.model_directory import Artifact
from bothways.inference.onnx.export import write_graph
from bothways.inference.onnx.record import Export, Form, Graph
from bothways.inference.predictor import Predictor
from bothways.progress import Reporter
from bothways.tasks import Task, Trainable

MOST_FALL = 0.005  # of the task's metric, half a point
LEAST_AGREEMENT = 0.9  # of the answers, word for word
MOST_EXAMPLES = 2000  # are judged: enough to see a fall of half a point
CALIBRATION = 256  # of them set the scales of int8-static
LEAST_COSINE = 0.99  # of two vectors that count as the same answer
SPREAD_SHARE = 0.1  # of the numbers' standard deviation: two numbers no further apart count as the same answer


def export_judged(
    artifact: Artifact, form: Form, examples: Sequence[Example], reporter: Reporter, *, most_fall: float = MOST_FALL
) -> Export:
    """Write the graph of a model in one form, and judge it on the examples unless it is fp32.

    Every how-many-eth of the examples is taken, so that no more than `MOST_EXAMPLES` are. A rejected graph stays in
    the folder and its record, and is not used.
    """
    examples = [example for example in examples if artifact.task.problem(example) is None]
    examples = examples[:: -(-len(examples) // MOST_EXAMPLES) or 1]
    if form != "fp32" and not examples:
        raise DataError(f"there is no text that {artifact.task.name} can answer, so nothing to judge {form} on")
    batches: list[Batch] = []
    if form == "int8-static":
        windows = artifact.task.encode(examples[:: -(-len(examples) // CALIBRATION) or 1], artifact.tokenizer)
        groups = budgeted([len(window.ids) for window in windows], MAX_TOKENS)
        batches = [make_batch([windows[index] for index in group]) for group in groups]
    export = write_graph(artifact, form, batches, reporter)
    if form == "fp32":
        return export
    task, tokenizer = artifact.task, artifact.tokenizer
    pad_id = artifact.config.pad_token_id
    engine = OnnxRuntimeEngine(export, export.file(form), form, pad_id, streams=cores())
    predictions = Predictor(task, tokenizer, engine, artifact).predict_examples(examples, reporter)
    if task.head == "masked" and not any(prediction.masks for prediction in predictions):
        raise DataError(f"no text has a masked word ([MASK] or <mask>), so there is nothing to judge {form} on")
    plain = open_engine(artifact, Reporter(quiet=True), engine="torch", precision="fp32")
    reference = Predictor(task, tokenizer, plain, artifact).predict_examples(examples, reporter)
    graph = judged(export.graphs[form], task, examples, reference, predictions, most_fall=most_fall)
    export = export.with_graph(form, graph)
    export.write()
    state = "accepted" if graph.rejected is None else f"REJECTED: {graph.rejected}"
    tell = reporter.say if graph.rejected is None else reporter.note
    tell(f"{form} graph {state} ({graph.measured()})")
    return export


def judged(
    graph: Graph,
    task: Task,
    examples: Sequence[Example],
    reference: Sequence[Any],
    predictions: Sequence[Any],
    *,
    most_fall: float = MOST_FALL,
) -> Graph:
    """The record of a graph with what its predictions are worth against those in fp32.

    It is rejected where the metric falls by more than `most_fall` and one answer's worth, or where fewer than
    `LEAST_AGREEMENT` of the answers are the same. Examples without gold are judged by agreement alone; a `most_fall`
    of 1 lets everything through.
    """
    agreement = float(np.mean(_same(task, reference, predictions)))
    graph = replace(graph, agreement=agreement, examples=len(examples), rejected=None)
    reasons = []
    if agreement < LEAST_AGREEMENT:
        reasons.append(f"{100 * agreement:.1f} % of its answers are those of fp32, at least 90 % are asked")
    if isinstance(task, Trainable) and all(example.gold is not None for example in examples):
        before, after = (_score(task, each, examples) for each in (reference, predictions))
        graph = replace(graph, metric=task.headline, reference=before, value=after)
        if before - after > most_fall + 1 / len(examples):
            reasons.append(
                f"its {task.headline} is {after:.4f} where fp32 has {before:.4f}, "
                f"a fall of more than {100 * most_fall:g} points"
            )
    return replace(graph, rejected="; ".join(reasons) if reasons and most_fall < 1 else None)


def _score(task: Trainable, predictions: Sequence[Any], examples: Sequence[Example]) -> float:
    golds = [example.gold for example in examples if example.gold is not None]
    scores = task.score(predictions, golds, rng=np.random.default_rng(0), resamples=2)
    return scores.metrics[task.headline].value


def _same(task: Task, reference: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
    """(n,) whether two predictions are the same answer."""
    pairs = list(zip(reference, predictions, strict=True))
    if task.head in ("hidden", "pooled"):
        return np.array([_cosine(first.vector, second.vector) >= LEAST_COSINE for first, second in pairs])
    if getattr(task, "kind", None) == "regression":
        numbers = np.array([(first.score, second.score) for first, second in pairs])
        return np.abs(numbers[:, 0] - numbers[:, 1]) <= SPREAD_SHARE * numbers[:, 0].std()
    return np.array([first.said()[0] == second.said()[0] for first, second in pairs])


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    if not first.size or not second.size:
        return float(first.size == second.size)
    return float(first.ravel() @ second.ravel() / (np.linalg.norm(first) * np.linalg.norm(second) + 1e-12))
