"""Attention probabilities of every family against `transformers`, and the files that hold their ONNX models."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from bothways.cli import run
from bothways.errors import BothwaysError, CheckpointError, MissingDependencyError, OptionError
from bothways.inference.attentions import find_attentions
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.build import build_attentions
from bothways.inference.onnx.record import ATTENTIONS, ExportRecord
from bothways.jobs.directory import _remove_run
from bothways.jobs.export import export
from bothways.jobs.info import describe_model
from bothways.model.families import FAMILIES
from bothways.text.tokenizer import Tokenizer
from tests.model.test_parity import LENGTHS, ours_from, padded_inputs, theirs
from tests.tiny import write_base, write_csv


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_attentions_are_those_of_transformers(family, tmp_path):
    """All layers, heads and tokens of texts with padding, which nobody attends to; ONNX Runtime in fp32."""
    model = theirs(family)
    inputs, _ = padded_inputs(family, model.config)
    with torch.inference_mode():
        expected = torch.stack(model(**inputs, output_attentions=True).attentions, dim=1).numpy()
    ours = ours_from(model, tmp_path)
    weights = {name: value.numpy() for name, value in ours.state_dict().items()}
    onnx_model = build_attentions(ours.config, weights)
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in inputs.items()}
    given.setdefault("token_type_ids", np.zeros_like(given["input_ids"]))
    (found,) = session.run(None, given)
    assert found.shape == expected.shape == (len(LENGTHS), 3, 4, max(LENGTHS), max(LENGTHS))
    assert expected.std() > 0.02, "all alike: nothing is compared"
    real = given["attention_mask"].astype(bool)  # (B, T) queries
    found, expected = (each.transpose(0, 3, 1, 2, 4)[real] for each in (found, expected))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.mark.parametrize("pair", [None, "a joy to watch"])
def test_an_exported_model_gives_them_for_one_text(base, pair):
    made = export(base, task="embed", attentions=True)
    assert made.models == {}
    assert ExportRecord.read(base) == made
    model_directory = ModelDirectory.read(base, "embed")
    encoded = Tokenizer.from_directory(base).encode("great film", pair)
    attentions = find_attentions(model_directory)
    assert (attentions.layers, attentions.heads) == (2, 4)
    found = attentions.run(encoded.ids, encoded.type_ids)
    theirs = transformers.AutoModel.from_pretrained(base, attn_implementation="eager").eval()
    ids, types = (torch.from_numpy(each.astype(np.int64))[None] for each in (encoded.ids, encoded.type_ids))
    with torch.inference_mode():
        expected = torch.cat(theirs(input_ids=ids, token_type_ids=types, output_attentions=True).attentions)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_the_usual_onnx_model_is_written_too_or_stays(base, tmp_path):
    made = export(base, task="embed", precision="fp32", attentions=True)
    assert sorted(path.name for path in (base / "onnx").iterdir()) == [ATTENTIONS, "export.json", "model.onnx"]
    assert list(made.models) == ["fp32"]
    (base / "onnx" / ATTENTIONS).unlink()
    assert export(base, task="embed", attentions=True) == made
    assert describe_model(str(base), "embed")["exports"]["attentions"]["bytes"] > 1000
    export(base, task="embed", precision="int8", calibrate=write_csv(tmp_path / "texts.csv"), max_drop=1.0)
    assert ExportRecord.read(base).attentions == made.attentions


def test_attentions_depend_on_the_encoder_alone_so_onnx_models_of_another_head_stay(base):
    replace(export(base, task="embed", precision="fp32"), head="masked", outputs=7).write()
    made = export(base, task="embed", attentions=True)
    assert (made.head, list(made.models)) == ("masked", ["fp32"])
    assert made.file("fp32").is_file()
    assert find_attentions(ModelDirectory.read(base, "embed")) is not None


def test_attentions_of_other_weights_are_not_shown(base):
    export(base, task="embed", attentions=True)
    path = base / "onnx" / ATTENTIONS
    attentions = find_attentions(ModelDirectory.read(base, "embed"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"attentions_fp32\.onnx: damaged, .* --attentions writes it again"):
        attentions.run(np.arange(3), np.zeros(3))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    model_directory = ModelDirectory.read(base, "embed")
    assert find_attentions(model_directory) is None
    export(base, task="embed", precision="fp32")  # the record is of the new weights, and the old file is gone
    assert not path.exists()
    assert find_attentions(model_directory) is None
    (base / "onnx" / "export.json").write_text("{")
    assert find_attentions(model_directory) is None


def test_a_run_that_is_removed_takes_them_along(base):
    export(base, task="embed", attentions=True)
    _remove_run(base)
    assert not (base / "onnx").exists()


def test_a_file_of_somebody_else_is_kept(base):
    (base / "onnx").mkdir()
    (base / "onnx" / ATTENTIONS).write_bytes(b"mine")
    with pytest.raises(OptionError, match=r"attentions_fp32\.onnx was not written by bothways"):
        export(base, task="embed", attentions=True)


def test_without_onnx_one_line_says_what_to_install(base, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(MissingDependencyError, match="exporting needs onnx"):
        export(base, task="embed", attentions=True)


def test_a_model_that_is_too_large_has_none(base, monkeypatch):
    monkeypatch.setattr("bothways.inference.onnx.export.MAX_BYTES", 1000)
    with pytest.raises(BothwaysError, match="larger than 2 GB in fp32"):
        export(base, task="embed", attentions=True)


def test_the_command_line_writes_them_into_a_copy(base, tmp_path, capsys):
    arguments = ["export", str(base), "--task", "embed", "--attentions", "--out", str(tmp_path / "own")]
    assert run(arguments) in (0, None)
    path = tmp_path / "own" / "onnx" / ATTENTIONS
    assert capsys.readouterr().out == f"{path}: attention probabilities in fp32\n"
    assert path.is_file()
    assert not (base / "onnx").exists()
    run([*arguments[:-2], "--precision", "fp32"])
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "not measured",
        "attention probabilities in fp32",
    ]


def test_a_copy_for_attentions_keeps_the_onnx_models(base, tmp_path):
    export(base, task="embed", precision="fp32")
    made = export(base, task="embed", attentions=True, out=tmp_path / "own")
    assert list(made.models) == ["fp32"]
    assert made.file("fp32").is_file()
    again = export(base, task="embed", precision="fp32", out=tmp_path / "other")
    assert again.attentions is None
