"""The ONNX graph of every family and head computes what the PyTorch modules compute."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from bothways.batch import Batch, make_batch
from bothways.errors import CheckpointError
from bothways.inference.engines.engine import onnx_inputs
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.engines.openvino import why_no_openvino
from bothways.inference.onnx.build import SHORT, WORDS, build, share
from bothways.inference.onnx.export import input_ranges
from bothways.inference.onnx.record import ExportRecord, OnnxModelRecord, OnnxPrecision
from bothways.model.config import EncoderConfig
from bothways.model.families import FAMILIES, READ_ONCE
from bothways.model.forward import forward
from bothways.model.heads import TaskModel
from bothways.text.tokenizer import Encoded

LENGTHS = (5, 11, 3, 8, 1, 8)
CASES = [
    (family, head)
    for family, rules in sorted(FAMILIES.items())
    for head in rules.heads
    if head != "pooled" or rules.pooler
]
# Root mean square of the error, of that of the logits: 8 bits carry two digits, and the errors of layers add up.
TOLERANCE: dict[OnnxPrecision, float] = {"fp32": 1e-5, "int8": 0.05, "int8-static": 0.05}


def config_of(family: str) -> EncoderConfig:
    """A tiny model; ALBERT and ELECTRA with embeddings narrower than their layers."""
    rules = FAMILIES[family]
    return EncoderConfig(
        family=family,
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        hidden_act="gelu_tanh" if family == "albert" else "gelu",
        max_position_embeddings=40 + rules.position_offset,
        type_vocab_size=(1 if rules.position_offset else 2) if rules.segments else 0,
        embedding_size=16 if family in ("albert", "electra") else None,
    )


def model_of(family: str, head: str, **changes: int) -> TaskModel:
    model = TaskModel(config_of(family).replace(**changes), head, {"classify": 3, "tokens": 5}.get(head, 2))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():  # zero biases would hide a bias that is never read
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        nn.init.normal_(parameter, mean, 0.2, generator=generator)
    return model.eval()


def ragged(family: str, seed: int = 3, *, head: str = "hidden") -> Batch:
    """Windows of several lengths with what the head reads of them: some tokens, or one."""
    rng = np.random.default_rng(seed)
    windows = []
    for example, length in enumerate(LENGTHS):
        ids = rng.integers(5, 97, size=length).astype(np.int32)
        types = rng.integers(0, config_of(family).type_vocab_size or 1, size=length).astype(np.int32)
        nothing = np.zeros(length, np.int32)
        several = 1 if head in READ_ONCE else int(rng.integers(1, length + 1))
        reads = np.sort(rng.choice(length, size=several, replace=False))
        windows.append(
            Encoded(
                ids,
                types,
                np.zeros((length, 2), np.int32),
                nothing,
                nothing.astype(np.int8),
                example,
                0,
                head_positions=reads,
            )
        )
    return make_batch(windows)


def run(model: TaskModel, precision: OnnxPrecision, batch: Batch, head: str) -> np.ndarray:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    graph = build(model.config, head, weights, precision, ranges=input_ranges(model, [batch]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ids, mask, types = batch.padded(model.config.pad_token_id)
    given = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": types,
        "head_positions": batch.padded_head_positions(),
    }
    return session.run(None, given)[0]


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-static"])
@pytest.mark.parametrize(("family", "head"), CASES)
def test_an_onnx_model_computes_what_the_modules_compute(family, head, precision):
    model, batch = model_of(family, head), ragged(family, head=head)
    with torch.inference_mode():
        expected = forward(model, batch).numpy()
    found = run(model, precision, batch, head)
    assert found.shape == expected.shape
    assert np.square(found - expected).mean() <= TOLERANCE[precision] ** 2 * np.square(expected).mean()


def test_what_padding_holds_changes_no_answer():
    """Windows beside longer ones answer as alone, whatever their padding holds."""
    model, batch = model_of("bert", "hidden"), ragged("bert")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    session = onnxruntime.InferenceSession(
        build(model.config, "hidden", weights, "int8").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ids, mask, types = batch.padded(0)
    reads = batch.padded_head_positions()
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "head_positions": reads}
    first = session.run(None, given)[0]
    # Padding that repeats a real token of the batch leaves the batch's range, and so its scale, as it was.
    second = session.run(None, given | {"input_ids": np.where(mask == 1, ids, ids[0, 0])})[0]
    np.testing.assert_allclose(first, second, atol=0.05 * np.abs(first).max())


def test_both_ways_of_attention_give_the_same():
    """Long windows without padding take ONNX Runtime's kernel, the same windows beside padding plain operators."""
    model = model_of("bert", "hidden", max_position_embeddings=SHORT + 8)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    graph = build(model.config, "hidden", weights, "int8")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 97, (2, SHORT + 8))
    mask = np.ones_like(ids)
    given = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "head_positions": np.arange(len(ids[0]))}
    kernel = session.run(None, given | {"attention_mask": mask})[0]
    mask[1, -1] = 0
    plain = session.run(None, given | {"attention_mask": mask})[0]
    np.testing.assert_allclose(kernel, plain, atol=0.05 * np.abs(kernel).max())
    assert not np.array_equal(kernel, plain), "both took one way"


def test_relative_positions_take_one_way_of_attention():
    """ONNX Runtime's kernel is not given biases by distance: windows with padding and without answer alike."""
    model = model_of("mpnet", "hidden", max_position_embeddings=2 * SHORT + 2)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    session = onnxruntime.InferenceSession(
        build(model.config, "hidden", weights, "int8").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ids = np.random.default_rng(0).integers(5, 97, (2, SHORT + 8))
    given = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "head_positions": np.arange(len(ids[0]))}
    alone = session.run(None, given | {"attention_mask": np.ones_like(ids)})[0]
    wide = {name: np.pad(given[name], ((0, 0), (0, 9))) for name in ("input_ids", "token_type_ids")}
    mask = np.pad(np.ones_like(ids), ((0, 0), (0, 9)))
    padded = session.run(None, given | wide | {"attention_mask": mask})[0]
    np.testing.assert_allclose(alone, padded, atol=1e-5)


# Reads a folder of graphs and inputs, writes what OpenVINO computes; alone in its process, as it has died in some.
OPENVINO = """
import sys
from pathlib import Path
import numpy as np, openvino
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    given = dict(np.load(path.with_suffix(".npz")))
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.save(path.with_suffix(".npy"), next(iter(compiled.create_infer_request().infer(given).values())))
"""


def test_openvino_computes_what_the_modules_compute_for_every_family_and_head(tmp_path):
    reason = why_no_openvino()
    if reason is not None:
        pytest.skip(reason)
    expected, forms = {}, ("fp32", "int8-static")
    for family, head in CASES:
        model, batch = model_of(family, head), ragged(family, head=head)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        with torch.inference_mode():
            expected[family, head] = forward(model, batch).numpy()
        for precision in forms:
            graph = build(model.config, head, weights, precision, ranges=input_ranges(model, [batch]))
            path = tmp_path / f"{family} {head} {precision}.onnx"
            path.write_bytes(graph.SerializeToString())
            larger = len(LENGTHS) + 1, max(LENGTHS) + 2  # as the engine pads batches
            np.savez(path.with_suffix(".npz"), **onnx_inputs(batch, model.config.pad_token_id, larger))
    subprocess.run([sys.executable, "-c", OPENVINO, str(tmp_path)], check=True)
    for (family, head), wanted in expected.items():
        for precision in forms:
            found = np.load(tmp_path / f"{family} {head} {precision}.npy")[: len(wanted)]
            off = np.square(found - wanted).mean() / np.square(wanted).mean()
            assert off <= max(TOLERANCE[precision], 1e-4) ** 2, (family, head, precision)


def test_onnx_models_that_share_weights_answer_as_before(tmp_path):
    """The vocabulary's table of several graphs lies in one file; the masked head reads it too."""
    for head in ("masked", "next", "tokens"):
        model, batch = model_of("bert", head), ragged("bert", head=head)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        expected = run(model, "int8", batch, head)
        graph = build(model.config, head, weights, "int8")
        size = len(graph.SerializeToString())
        taken = share(graph, {"words.safetensors": lambda name: name == f"{WORDS}.rows"})
        assert [array.shape for array in taken["words.safetensors"].values()] == [(97, 32)]
        content = graph.SerializeToString()
        assert len(content) < size - 97 * 32 + 300
        (tmp_path / head / "onnx").mkdir(parents=True)
        (tmp_path / head / "onnx" / "model_int8.onnx").write_bytes(content)
        save_file(taken["words.safetensors"], tmp_path / "words.safetensors")
        hashes = [hashlib.sha256(each).hexdigest() for each in (content, (tmp_path / "words.safetensors").read_bytes())]
        record = OnnxModelRecord(hashes[0], shared={"words.safetensors": hashes[1]})
        export = ExportRecord(tmp_path / head, head, 2, "", "", 1, {"int8": record})
        engine = OnnxRuntimeEngine(export, export.file("int8"), "int8", 0)
        np.testing.assert_array_equal(engine.run(batch), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(engine)).run(batch), expected)
        (tmp_path / "words.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"words\.safetensors: cannot be read"):
            OnnxRuntimeEngine(export, export.file("int8"), "int8", 0)
