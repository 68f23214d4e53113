"""The average holds the mean of the weights and runs like any other model; models that do not fit are refused."""
# ruff: noqa: E402 - what needs PyTorch is imported after the check that it is there

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models are written with PyTorch")

from safetensors.numpy import load_file

import bothways
from bothways.errors import OptionError
from bothways.inference.model_directory import ModelDirectory
from bothways.jobs.average import average
from bothways.jobs.settings import ancestors_of, hash_of
from bothways.model.checkpoint import load_model, model_tensors, write_safetensors
from bothways.tasks import Classify, Tag
from bothways.text.tokenizer import Tokenizer
from tests.tiny import ROWS, TINY, write_base

TWO = Classify(("bad", "good"), max_length=16, stride=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def write_run(directory, base, seed, task=TWO, **facts):
    """A model that looks as if it were fine-tuned from a base: the base's weights, moved a little."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(seed)
    model, _ = load_model(base, task.head, task.outputs, generator, new_head=True)
    with torch.no_grad():
        for part in model.parameters():
            part += 0.01 * torch.randn(part.shape, generator=generator)
    write_safetensors(directory / "model.safetensors", model_tensors(model), {"format": "pt"})
    facts = {
        "base": base.name,
        "base_sha256": hash_of(base / "model.safetensors"),
        "base_ancestors": ancestors_of(base),
    } | facts
    ModelDirectory(directory, model.config, task, Tokenizer.from_directory(base), facts).write()
    return directory


@pytest.fixture
def runs(tmp_path, base):
    return [write_run(tmp_path / f"run-{seed}", base, seed) for seed in range(3)]


def tensors(directory):
    return load_file(directory / "model.safetensors")


def test_the_weights_are_the_mean_and_the_rest_is_of_the_last_run(runs, tmp_path):
    made = average(runs, out=tmp_path / "out", export=False)
    parts, mean = [tensors(run) for run in runs], tensors(tmp_path / "out")
    assert set(mean) == set(parts[0])
    for name, value in mean.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, np.mean([part[name] for part in parts], axis=0), atol=1e-6)
    assert [one["name"] for one in made.facts["averaged"]] == [run.name for run in runs]
    assert made.comparison is None
    directory = ModelDirectory.read(tmp_path / "out")
    assert directory.task == TWO
    assert directory.facts["base_sha256"] == ModelDirectory.read(runs[0]).facts["base_sha256"]
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").glob("*.json"))


def test_it_is_a_whole_model_that_was_compared_and_checked_on_dev(runs, tmp_path, caplog):
    caplog.set_level("INFO", "bothways")
    made = average(runs[:2], out=tmp_path / "out", dev=ROWS)
    assert [row.title for row in made.comparison.rows] == ["run-0", "run-1", "out"]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n"] == 12
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The mean of the weights of 2 models: run-0, run-1." in card
    assert made.facts["onnx_model"].startswith(("int8", "fp32"))
    predictor = bothways.load(tmp_path / "out", engine="onnxruntime")
    assert predictor.predict(["great film"])[0] in ("bad", "good")
    assert "out" in repr(made)


def test_without_dev_the_onnx_model_is_in_fp32(runs, tmp_path):
    made = average(runs[:2], out=tmp_path / "out")
    assert made.facts["onnx_model"] == "fp32; no int8: it needs labeled texts to be checked on"
    mean = bothways.load(tmp_path / "out", engine="torch", precision="fp32")
    exported = bothways.load(tmp_path / "out", engine="onnxruntime")
    texts = [row["text"] for row in ROWS]
    np.testing.assert_allclose(mean.predict_proba(texts), exported.predict_proba(texts), atol=1e-4)


def test_the_threshold_of_several_labels_is_set_on_dev(base, tmp_path):
    task = Classify(("bad", "good"), "multi", max_length=16, stride=4, threshold=0.99)
    runs = [write_run(tmp_path / f"run-{seed}", base, seed, task) for seed in range(2)]
    rows = [{"text": row["text"], "labels": [row["label"]]} for row in ROWS]
    average(runs, out=tmp_path / "out", dev=rows, export=False)
    assert ModelDirectory.read(tmp_path / "out").task.threshold < 0.99
    average(runs, out=tmp_path / "plain", export=False)
    assert ModelDirectory.read(tmp_path / "plain").task.threshold == 0.99


def test_a_model_can_be_averaged_with_what_was_fine_tuned_from_it(runs, tmp_path):
    """Also further down: the average is a base again, and what is fine-tuned from it has the same ancestors."""
    second = write_run(tmp_path / "second", runs[0], 7)
    average([runs[0], second], out=tmp_path / "between", export=False)
    facts = ModelDirectory.read(tmp_path / "between").facts
    assert (facts["base"], facts["base_sha256"]) == ("run-0", hash_of(runs[0] / "model.safetensors"))
    third = write_run(tmp_path / "third", tmp_path / "between", 8)
    average([runs[0], third], out=tmp_path / "out", export=False)
    assert ModelDirectory.read(tmp_path / "out").facts["base"] == "run-0"
    average([third, runs[1]], out=tmp_path / "far", export=False)  # both are from the first base in the end
    assert ModelDirectory.read(tmp_path / "far").facts["base"].startswith("base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": Classify(("good", "bad"), max_length=16, stride=4)}, "have the same labels in another order"),
        ({"task": Classify(("bad", "fine"), max_length=16, stride=4)}, "have different labels, so they cannot"),
        (
            {"task": Classify(("bad", "good"), "multi", max_length=16, stride=4)},
            r"different tasks \(classify, multi and",
        ),
        ({"task": Tag(("O", "B-X", "I-X"), max_length=16, stride=4)}, r"have different tasks \(tag and classify"),
        ({"base_sha256": "0" * 64, "base_ancestors": []}, "were not fine-tuned from the same base"),
        ({"base_sha256": None, "base_ancestors": None}, "were not fine-tuned from the same base"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_line(runs, base, tmp_path, change, message):
    other = write_run(tmp_path / "other", base, 9, **change)
    with pytest.raises(OptionError, match=message) as refused:
        average([runs[0], other], out=tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_models_of_another_shape_are_refused(runs, tmp_path):
    wide = write_base(tmp_path / "wide", TINY.replace(intermediate_size=128))
    with pytest.raises(OptionError, match=r"have different shapes \(config\.json\)"):
        average([runs[0], write_run(tmp_path / "other", wide, 1)], out=tmp_path / "out")
    more = tensors(runs[1])
    more["extra"] = np.zeros(3, np.float32)
    write_safetensors(runs[1] / "model.safetensors", {name: torch.from_numpy(x) for name, x in more.items()}, {})
    with pytest.raises(OptionError, match=r"do not have the same weights \(extra: \(3,\), not there\)"):
        average(runs[:2], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_that_make_no_sense_are_refused(runs, base, tmp_path):
    for given, out, message in (
        (runs[:1], "out", "found one model, expected at least two"),
        ([runs[0], runs[0]], "out", "is given twice"),
        (runs[:2], "run-1", "holds a finished model"),
        ([base, runs[0]], "out", "which has no trained head"),
    ):
        with pytest.raises(bothways.BothwaysError, match=message):
            average(given, out=tmp_path / out)
    with pytest.raises(OptionError, match="is both a model to average and the output"):
        average(runs[:2], out=runs[1], overwrite=True)


def test_an_average_is_replaced_with_overwrite_alone(runs, tmp_path):
    average(runs[:2], out=tmp_path / "out", export=False)
    before = tensors(tmp_path / "out")
    with pytest.raises(OptionError, match="holds a finished model"):
        average(runs[1:], out=tmp_path / "out")
    average(runs[1:], out=tmp_path / "out", export=False, overwrite=True)
    assert any((tensors(tmp_path / "out")[name] != value).any() for name, value in before.items())
    shutil.rmtree(tmp_path / "out")
