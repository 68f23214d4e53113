"""Tables fit into the terminal and cut no number, whatever the names and labels are."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from bothways.evaluation.compare import Comparison, Contender
from bothways.evaluation.tables import (
    comparison_tables,
    evaluation_tables,
    facts_table,
    laid_out,
    models_tables,
    trials_tables,
)
from bothways.evaluation.tune import Speed, Trial
from bothways.inference.onnx.record import OnnxModelRecord
from bothways.inference.plan import Plan
from bothways.metrics import single_label
from bothways.model.catalogue import CATALOGUE
from bothways.tasks.classify import Classify


def rendered(tables, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in tables:
        console.print(table)
    written = console.file.getvalue()
    assert max(map(len, written.splitlines())) <= width, written
    assert "…" not in written
    return written


def scores_of(count: int, wide: str = ""):
    labels = [f"{wide}label {number}" for number in range(count)]
    rng = np.random.default_rng(0)
    references = [labels[place % count] for place in range(1234 * count)]
    wrong = rng.random(len(references)) < 0.1
    predicted = [
        labels[rng.integers(count)] if bad else reference for reference, bad in zip(references, wrong, strict=True)
    ]
    return single_label(references, predicted, labels, confidences=[0.9] * len(references), rng=rng, resamples=50)


def figures(scores) -> list[str]:
    return [f"{part:.3f}" for one in scores.metrics.values() for part in (one.value, one.low, one.high)]


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("models", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["runs/a", "/a/very/long/path/to/a/directory/of/models/runs/banking-minilm-l6-lr1e-3"])
def test_a_comparison_fits_and_has_every_figure(width, models, name):
    scores = scores_of(3)
    rows = tuple(
        Contender(
            **{
                "name": f"{name}{number}",
                "title": f"{name}{number}",
                "scores": scores,
                "p": 0.0123,
                "predictions": (None,) * 3702,
                "texts_per_second": 12345.6,
                "parameters": 109_482_240,
                "disk": 438_000_000,
                "memory": 1_234_000_000,
            }
        )
        for number in range(models)
    )
    written = rendered(comparison_tables(Comparison(Classify(("a", "b")), rows, ()), width), width)
    for figure in (*figures(scores), "0.012", "12,346", "109,482,240", "438 MB", "1,234 MB"):
        assert figure in written, figure
    assert name in re.sub(r"\s+", "", written) or models == 1 or len(name) > width // 2


@pytest.mark.parametrize("count", [2, 5, 8, 30, 150])
@pytest.mark.parametrize("wide", ["", "a very long name of a label, with a comma and more words than fit: "])
def test_an_evaluation_fits_and_has_every_figure(count, wide):
    scores = scores_of(count, wide)
    written = rendered(evaluation_tables(scores, 80), 80)
    for interval in scores.metrics.values():
        assert f"{interval.value:.4f}" in written
        assert f"{interval.low:.4f} to {interval.high:.4f}" in written
    assert written.rstrip().splitlines()[-1].split()[-2] == "to"  # the headline figures come last
    assert written.count("1,234") >= min(count, 30)


def test_of_many_labels_the_worst_and_the_most_frequent_confusions_are_shown():
    labels = [f"l{number:03}" for number in range(150)]
    references = labels * 10
    predicted = ["l001" if reference == "l000" else reference for reference in references]
    scores = single_label(references, predicted, labels, confidences=None, rng=np.random.default_rng(0), resamples=10)
    written = rendered(evaluation_tables(scores, 80), 80)
    assert "The 30 labels of 150 with the lowest F1" in written
    assert re.search(r"l000 +l001 +10", written)
    assert written.index("l000") < written.index("l149") if "l149" in written else True


def test_a_small_confusion_matrix_is_shown_whole():
    written = rendered(evaluation_tables(scores_of(3), 80), 80)
    assert "true \\ predicted" in written


def test_the_base_models_fit_into_80_columns_and_need_not_be_stacked():
    written = rendered(models_tables(80), 80)
    for name, base in CATALOGUE.items():
        line = next(line for line in written.splitlines() if line.startswith(name))
        assert f"{base.config.count_parameters():,}" in line
    rendered(models_tables(40), 40)


def test_trials_fit_and_reasons_are_whole():
    reason = "OpenVINO does not run here: " + "a long reason " * 20
    trials = [
        Trial(Plan("openvino", "int8-static", 16, 16384), 123456.7, 12_345_000_000, None, "", 12.34, 5.67),
        Trial(Plan("torch", "bf16", 1, 512), 0.0, 0, None, reason),
    ]
    written = rendered(trials_tables(trials, 80), 80)
    assert "123,457" in written
    assert "12,345 MB" in written
    assert "12.34" in written
    assert "5.67 s" in written
    assert " ".join(reason.split()) in " ".join(written.split()).replace("torch bf16", "")


def test_many_trials_are_rows_of_80_columns():
    plan = Plan("onnxruntime", "int8", 2, 384, long=Plan("openvino", "int8-static", 2, 1024))
    speeds = (Speed(2345.0, 1.23), Speed(345.0, 12.34))
    checked = OnnxModelRecord("", agreement=0.998)
    trials = [Trial(plan, 1234.0, 123_000_000, checked, None, 2.34, 0.43, speeds)] * 12
    written = rendered(trials_tables(trials, 80), 80)
    first, second = written.split("Short texts, and long ones of 64 tokens and more")
    assert re.search(r"2x384 +1,234 +2.34 +123 MB +0.43 s +99.8 % +chosen", first)
    assert re.search(r"2x384 +2,345 +345 +1.23 +12.34", second)
    assert "from 64 tokens openvino int8-static 2x1024" in re.sub(r"\s+", " ", re.sub(r"2x384.*", "", first))


def test_facts_are_one_a_line():
    facts = {"task": "classify", "labels": ["a", "b"], "exports": {"int8": {"accuracy": 0.9}}, "base": None}
    written = rendered([facts_table("runs/a", facts)], 80)
    assert re.search(r"labels +a, b", written)
    assert re.search(r"exports: int8: accuracy +0.9", written)
    assert "None" not in written


def test_hostile_labels_do_not_command_the_terminal():
    table = laid_out("a\x1b[2J", ["label", "F1"], [["[/b]\x1b]0;x\x07\n\u202e", "0.5"]], 80)
    written = rendered([table], 80)
    assert not re.search("[\x1b\x07\u202e]", written)
    assert "[/b]" in written
