"""The methods that `inference.py` measures, and the process in which each one runs.

`python rivals.py` reads orders from its standard input, one JSON object a line, and answers each with one line.
Imports of engines are inside the functions: a process loads only what its method needs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Job = dict[str, Any]  # directory, work (a folder for exports), texts (by kind), threads
Classifier = Callable[[list[str]], list[int]]
LABELS = ("negative", "positive")
MAX_LENGTH, BUDGET, SEED = 512, 512, 0
GEMM = (2048, 768, 3072)
CALIBRATION = "calibration.jsonl"  # some of the texts with the labels that fp32 gives them
NUMBERS = ("input_ids", "attention_mask", "token_type_ids")


# What every method shares: batches and streams. numpy alone, so that each child loads only its own engine.


def budgeted(lengths: Sequence[int], budget: int, at_most: int = 10**6) -> Iterator[list[int]]:
    """Groups of indices, longest first, of at most `budget` tokens with their padding and `at_most` texts."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and (lengths[group[0]] * (len(group) + 1) > budget or len(group) == at_most):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Any]:
    """Ids of the longest text first -> (B, T) ids, mask and segment ids."""
    import numpy as np

    ids = np.full((len(rows), len(rows[0])), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return dict(zip(NUMBERS, (ids, mask, np.zeros_like(ids)), strict=True))


def open_tokenizer(directory: Path) -> Callable[[list[str]], list[list[int]]]:
    """The Rust tokenizer as it is, without the records that transformers makes of its answers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    return lambda texts: [one.ids for one in tokenizer.encode_batch_fast(texts)]


def streaming(directory: Path, workers: Sequence[Callable[[list[list[int]]], Any]]) -> Classifier:
    """A loop over batches of the token budget, one Python thread a stream; a stream turns ids into logits."""
    encode = open_tokenizer(directory)

    def classify(texts: list[str]) -> list[int]:
        ids = encode(texts)
        groups = budgeted([len(row) for row in ids], BUDGET)
        labels, lock, failures = [0] * len(texts), threading.Lock(), []

        def work(run: Callable[[list[list[int]]], Any]) -> None:
            try:
                while True:
                    with lock:
                        group = next(groups, None)
                    if group is None:
                        return
                    for index, label in zip(group, run([ids[one] for one in group]).argmax(-1), strict=True):
                        labels[index] = int(label)
            except Exception as error:  # noqa: BLE001 - a thread has nobody above it; raised again below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(run,)) for run in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return labels

    return classify


def config_of(directory: Path) -> dict[str, Any]:
    """The config.json of a model directory."""
    return json.loads((directory / "config.json").read_text(encoding="utf-8"))


def inputs_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The names of what a model reads; segment ids only where it knows more than one segment."""
    return NUMBERS if config.get("type_vocab_size", 0) > 1 else NUMBERS[:2]


# The methods. Each opens what it needs, once, and returns a function from texts to label numbers.


def open_pipeline(job: Job) -> Classifier:
    """The pipeline of transformers as everybody calls it: one text at a time; texts that are too long are cut."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(job["threads"])
    classify = pipeline("text-classification", model=job["directory"])
    assert classify.model.dtype == torch.float32
    number = {label: place for place, label in enumerate(LABELS)}
    return lambda texts: [number[a["label"]] for a in classify(texts, truncation=True, max_length=MAX_LENGTH)]


def open_transformers(job: Job, *, dtype: str, budget: int) -> Classifier:
    """Transformers as an expert calls it: sorted by length, SDPA, batches of 32 texts or of a token budget."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["directory"])
    made = {"attn_implementation": "sdpa", "dtype": getattr(torch, dtype)}
    model = AutoModelForSequenceClassification.from_pretrained(job["directory"], **made).eval()
    wanted, pad_id = inputs_of(config_of(Path(job["directory"]))), model.config.pad_token_id

    def classify(texts: list[str]) -> list[int]:
        ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        labels = [0] * len(texts)
        with torch.inference_mode():
            for group in budgeted([len(row) for row in ids], budget, 32):
                numbers = padded([ids[one] for one in group], pad_id)
                logits = model(**{name: torch.from_numpy(numbers[name]) for name in wanted}).logits
                for index, label in zip(group, logits.argmax(-1).tolist(), strict=True):
                    labels[index] = label
        return labels

    return classify


def open_onnxruntime(job: Job, *, file: str) -> Classifier:
    """A session of one thread for each core, all ONNX model optimizations, no spinning of idle threads."""
    import onnxruntime

    directory, path = Path(job["directory"]), str(Path(job["work"]) / file)
    pad_id = config_of(directory)["pad_token_id"]

    def stream() -> Callable[[list[list[int]]], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        kinds = {one.name: "int32" if one.type == "tensor(int32)" else "int64" for one in session.get_inputs()}

        def run(rows: list[list[int]]) -> Any:
            numbers = padded(rows, pad_id)
            return session.run(["logits"], {name: numbers[name].astype(kind) for name, kind in kinds.items()})[0]

        return run

    return streaming(directory, [stream() for _ in range(job["threads"])])


def open_openvino(job: Job, *, file: str, hint: str) -> Classifier:
    """One compiled model with a stream of one thread for each core; the precision hint is always said."""
    import numpy as np
    import openvino

    directory, count = Path(job["directory"]), job["threads"]
    config = config_of(directory)
    settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": count, "INFERENCE_NUM_THREADS": count}
    model = openvino.Core().compile_model(str(Path(job["work"]) / file), "CPU", settings)
    openvino.Tensor(
        np.zeros(1, np.float32)
    ).element_type.to_dtype()  # the first array; two threads that give it at once wait for ever
    wanted, pad_id = inputs_of(config), config["pad_token_id"]

    def stream() -> Callable[[list[list[int]]], Any]:
        request = model.create_infer_request()

        def run(rows: list[list[int]]) -> Any:
            numbers = padded(rows, pad_id)
            return request.infer({name: numbers[name] for name in wanted}, share_inputs=True)[0]

        return run

    return streaming(directory, [stream() for _ in range(count)])


def open_ctranslate2(job: Job) -> Classifier:
    """CTranslate2's encoder, which computes no padding, with the head of the model in numpy."""
    import ctranslate2
    import numpy as np
    from safetensors.numpy import load_file

    directory, count = Path(job["directory"]), job["threads"]
    family = config_of(directory)["model_type"]
    options = {"device": "cpu", "compute_type": "int8", "inter_threads": count, "intra_threads": 1}
    encoder = ctranslate2.Encoder(str(Path(job["work"]) / "ctranslate2"), **options)
    weights = load_file(directory / "model.safetensors")

    def linear(name: str, rows: Any) -> Any:
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def run(rows: list[list[int]]) -> Any:
        states = encoder.forward_batch(rows)
        if family == "bert":
            return linear("classifier", np.array(states.pooler_output))
        first = np.array(states.last_hidden_state)[:, 0]
        if family == "distilbert":
            return linear("classifier", np.maximum(linear("pre_classifier", first), 0))
        return linear("classifier.out_proj", np.tanh(linear("classifier.dense", first)))

    return streaming(directory, [run] * count)


def open_sentence_transformers(job: Job, *, backend: str, file: str, **settings: Any) -> Classifier:
    """A cross-encoder, sentence-transformers' only classifier; it reads pairs, so the second text is empty."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(job["threads"])
    folder, made = str(Path(job["work"]) / "sbert"), {"file_name": file, **settings}
    options = {"backend": backend, "device": "cpu", "num_labels": len(LABELS), "model_kwargs": made}
    model = CrossEncoder(folder, max_length=MAX_LENGTH, **options)
    return lambda texts: [int(one.argmax()) for one in model.predict([(text, "") for text in texts], batch_size=32)]


def open_ours(job: Job, **wishes: str) -> Classifier:
    """Bothways, as it was tuned for the directory or as `wishes` say; long texts are cut, as every rival cuts them."""
    from bothways.inference.predictor import load

    predictor = load(job["directory"], truncation=True, **wishes)
    job["precision"] = predictor.engine.describe()
    return lambda texts: [LABELS.index(one.label) for one in predictor(texts)]


# Preparations, once a shape and never timed, each in a separate process. No rival uses our exporter.


def prepare_untuned(job: Job) -> None:
    """Export as `bothways finetune` does for texts of which some are long, with OpenVINO installed.

    A random head is spared the accuracy check.
    """
    for precision in ("int8", "int8-static"):
        _ours(job, ["export", "--precision", precision])
    (Path(job["directory"]) / "onnx" / "tuned.json").unlink(missing_ok=True)  # of a model that was given


def prepare_ours(job: Job) -> None:
    """Tune, as the guide tells users to."""
    if not (Path(job["directory"]) / "onnx" / "model_int8_static.onnx").is_file():
        prepare_untuned(job)
    _ours(job, ["tune"])


def _ours(job: Job, order: list[str]) -> None:
    texts = str(Path(job["work"]) / CALIBRATION)
    given = [job["directory"], texts] if order[0] == "tune" else [job["directory"], "--calibrate", texts]
    gate = [] if job["given"] else ["--max-drop", "1"]
    command = [sys.executable, "-W", "ignore", "-m", "bothways", order[0], *given, *order[1:], *gate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bothways {order[0]}: {done.stderr.strip()[-300:]}")


def plain_model(directory: str) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """The model of transformers as a function from numbers to logits, its input names, and an example of them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = AutoModelForSequenceClassification.from_pretrained(directory, attn_implementation="eager")
            self.model, self.names = made.eval(), inputs_of(config_of(Path(directory)))

        def forward(self, *numbers: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(self.names, numbers, strict=True))).logits

    plain = Logits()
    values = [torch.full((2, 9), 5), torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)]
    return plain, plain.names, dict(zip(plain.names, values, strict=False))


def prepare_onnxruntime(job: Job) -> None:
    """Export with PyTorch, quantize (dynamic, per channel), with and without ONNX Runtime's transformer fusions."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    work, (model, names, example) = Path(job["work"]), plain_model(job["directory"])
    axes = {name: {0: "B", 1: "T"} for name in names} | {"logits": {0: "B"}}
    options = {"input_names": list(names), "output_names": ["logits"], "dynamic_axes": axes, "opset_version": 17}
    # The older exporter with eager attention: the only pair whose attention the optimiser recognizes.
    torch.onnx.export(model, tuple(example.values()), str(work / "fp32.onnx"), dynamo=False, **options)
    config = config_of(Path(job["directory"]))
    heads, hidden = (
        config.get(a, config.get(b)) for a, b in (("num_attention_heads", "n_heads"), ("hidden_size", "dim"))
    )
    sizes = {"num_heads": heads, "hidden_size": hidden, "opt_level": 0}
    optimize_model(str(work / "fp32.onnx"), model_type="bert", **sizes).save_model_to_file(str(work / "fused.onnx"))
    for source, target in (("fp32.onnx", "int8.onnx"), ("fused.onnx", "int8-fused.onnx")):
        extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # fused operators have no shape inference
        options = {"per_channel": True, "weight_type": QuantType.QInt8, "extra_options": extra}
        quantize_dynamic(str(work / source), str(work / target), **options)


def prepare_openvino(job: Job) -> None:
    """Convert the model (its attention becomes one fused operator), then quantize with NNCF, calibrated on texts."""
    import nncf
    import openvino

    work, (model, names, example) = Path(job["work"]), plain_model(job["directory"])
    free = [(name, [-1, -1], openvino.Type.i64) for name in names]
    made = openvino.convert_model(model, example_input=tuple(example.values()), input=[one[1:] for one in free])
    for port, name in zip(made.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    made.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(made, work / "openvino.xml", compress_to_fp16=False)
    encode, pad_id = open_tokenizer(Path(job["directory"])), config_of(Path(job["directory"]))["pad_token_id"]
    ids = [row for texts in job["texts"].values() for row in encode(texts[:48])]
    batches = [padded([ids[one] for one in group], pad_id) for group in budgeted([len(row) for row in ids], BUDGET)]
    samples = nncf.Dataset([{name: batch[name] for name in names} for batch in batches])
    small = nncf.quantize(made, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
    openvino.save_model(small, work / "openvino-int8.xml")


def prepare_ctranslate2(job: Job) -> None:
    """Convert the encoder with CTranslate2's converter, int8; it wants a key that transformers 5 no longer writes."""
    import shutil

    from ctranslate2.converters import TransformersConverter

    source = Path(job["work"]) / "ctranslate2-source"
    shutil.copytree(job["directory"], source, ignore=shutil.ignore_patterns("onnx"))
    config = config_of(source) | {"position_embedding_type": "absolute"}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    TransformersConverter(str(source)).convert(str(Path(job["work"]) / "ctranslate2"), quantization="int8")


def prepare_sentence_transformers(job: Job) -> None:
    """Export and quantize with sentence-transformers' own functions; its OpenVINO engine gets the IR made above."""
    import shutil

    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    work = Path(job["work"])
    shutil.copytree(job["directory"], work / "sbert", dirs_exist_ok=True)
    model = CrossEncoder(job["directory"], backend="onnx", device="cpu", num_labels=len(LABELS))
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(work / "sbert"))
    for suffix in (".xml", ".bin"):
        if (work / f"openvino-int8{suffix}").is_file():
            shutil.copy(work / f"openvino-int8{suffix}", work / "sbert" / f"openvino_model{suffix}")


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the table: who answers, in which precision and on how many threads."""

    open: Callable[..., Classifier]
    precision: str
    threads: str
    settings: dict[str, Any]
    prepare: Callable[[Job], None] | None = None
    raw: bool = False  # an engine without a library around it
    every: int = 1  # reads only every so-manyth text, because it is slow


WHOLE, STREAMS, MANY = "1 x all", "1 a core", 10**9
_ONNX = {"prepare": prepare_onnxruntime, "raw": True}
_OPENVINO = {"prepare": prepare_openvino, "raw": True}
_SBERT = {"prepare": prepare_sentence_transformers}
REFERENCE, DEFAULT = "transformers fp32, sorted", "transformers pipeline, default"
OURS, UNTUNED, ONNX_ALONE = "bothways", "bothways, untuned", "bothways, ONNX Runtime alone"
_FP32, _BF16, _BUDGET = (
    {"dtype": d, "budget": b} for d, b in (("float32", MANY), ("bfloat16", MANY), ("bfloat16", 2048))
)
_IR, _INT8_IR = {"file": "openvino.xml"}, {"file": "openvino-int8.xml"}
METHODS: dict[str, Method] = {
    DEFAULT: Method(open_pipeline, "fp32", WHOLE, {}, every=4),
    REFERENCE: Method(open_transformers, "fp32", WHOLE, _FP32),
    "transformers bf16, sorted": Method(open_transformers, "bf16", WHOLE, _BF16),
    "transformers bf16, 2048-token batches": Method(open_transformers, "bf16", WHOLE, _BUDGET),
    "onnxruntime": Method(open_onnxruntime, "int8 dynamic", STREAMS, {"file": "int8.onnx"}, **_ONNX),
    "onnxruntime, fused": Method(open_onnxruntime, "int8 dynamic", STREAMS, {"file": "int8-fused.onnx"}, **_ONNX),
    "openvino bf16": Method(open_openvino, "bf16 (hint bf16)", STREAMS, _IR | {"hint": "bf16"}, **_OPENVINO),
    "openvino int8 bf16": Method(open_openvino, "int8 (hint bf16)", STREAMS, _INT8_IR | {"hint": "bf16"}, **_OPENVINO),
    "openvino int8 f32": Method(open_openvino, "int8 (hint f32)", STREAMS, _INT8_IR | {"hint": "f32"}, **_OPENVINO),
    "ctranslate2": Method(open_ctranslate2, "int8 + fp32", STREAMS, {}, prepare=prepare_ctranslate2, raw=True),
    "sentence-transformers onnx": Method(
        open_sentence_transformers,
        "int8 dynamic",
        WHOLE,
        {"backend": "onnx", "file": "onnx/model_qint8_avx512_vnni.onnx"},
        **_SBERT,
    ),
    "sentence-transformers openvino": Method(
        open_sentence_transformers,
        "int8 (hint bf16)",
        WHOLE,
        {"backend": "openvino", "file": "openvino_model.xml", "ov_config": {"INFERENCE_PRECISION_HINT": "bf16"}},
        **_SBERT,
    ),
    UNTUNED: Method(open_ours, "int8", "1 a core", {}, prepare=prepare_untuned),  # opened before it is tuned
    ONNX_ALONE: Method(
        open_ours, "int8", "1 a core", {"engine": "onnxruntime", "precision": "int8"}, prepare=prepare_untuned
    ),
    **{
        f"bothways, fused {precision}": Method(
            open_ours, precision, "1 a core", {"engine": "torch", "precision": precision}, prepare=prepare_ours
        )
        for precision in ("bf16", "int8-static")
    },
    OURS: Method(open_ours, "as tuned", "as tuned", {}, prepare=prepare_ours),
}


# Other work for children: making the model directory, and measuring what the processor can do.


def build(job: Job) -> dict[str, Any]:
    """Write the model directory; says its parameters, sizes, and the lengths of the texts in tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from bothways.errors import ModelNotFoundError
    from bothways.model.catalogue import CATALOGUE, find_model
    from bothways.text.tokenizer import Tokenizer

    directory, base = Path(job["directory"]), CATALOGUE[job["base"]]
    if not job["given"]:
        names = dict(enumerate(LABELS))
        made = {"num_labels": len(LABELS), "id2label": names, "label2id": {b: a for a, b in names.items()}}
        (directory / "config.json").write_text(json.dumps(base.config.to_json()), encoding="utf-8")
        torch.manual_seed(SEED)
        try:
            source = find_model(job["base"]) if base.packages else None
        except ModelNotFoundError:
            source = None
        maker = AutoModelForSequenceClassification
        if source is None:
            model = maker.from_config(AutoConfig.from_pretrained(directory, **made))
        else:
            model = maker.from_pretrained(source, **made)
        Tokenizer.packaged(base.vocabulary).save(directory)
        balance(model.eval(), open_tokenizer(directory), list(job["texts"].values()))
        model.save_pretrained(directory)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(directory)
    encode, config = open_tokenizer(directory), model.eval().config
    with (Path(job["work"]) / CALIBRATION).open("w", encoding="utf-8") as file, torch.inference_mode():
        for texts in job["texts"].values():
            for text, row in zip(texts[:48], encode(texts[:48]), strict=True):
                label = LABELS[int(model(torch.tensor([row])).logits.argmax())]
                file.write(json.dumps({"text": text, "label": label}) + "\n")
    lengths = {kind: [len(row) for row in encode(texts)] for kind, texts in job["texts"].items()}
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim
    sizes = {"layers": config.num_hidden_layers, "hidden": config.hidden_size, "inner": inner}
    return {"parameters": model.num_parameters(), "lengths": lengths, **sizes}


def balance(model: Any, encode: Callable[[list[str]], list[list[int]]], texts: list[list[str]]) -> None:
    """Give the random head the direction, of many, under which both labels occur most evenly in each kind of text."""
    import torch

    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    seen: list[Any] = []
    hook = last.register_forward_hook(lambda _module, given, _answer: seen.append(given[0]))
    with torch.inference_mode():
        for kind in texts:
            for row in encode(kind[:24]):
                model(torch.tensor([row]))
    hook.remove()
    size = len(seen) // len(texts)
    features = torch.cat(seen)
    best, evenness = torch.zeros(features.shape[1]), -1.0
    for _ in range(500):
        direction = torch.randn(features.shape[1])
        side = (features - features.mean(0)) @ direction > 0
        share = [float(part.float().mean()) for part in side.split(size)]
        even = min(min(one, 1 - one) for one in share)
        if even > evenness:
            best, evenness = direction / features.shape[1] ** 0.5, even
    with torch.no_grad():
        last.weight.copy_(torch.stack([-best, best]))
        middle = features.mean(0) @ best
        last.bias.copy_(torch.stack([middle, -middle]))


def gemm_peaks(job: Job) -> dict[str, float]:
    """GFLOP/s of one matrix product (2048x768x3072) in each precision: the best of PyTorch, oneDNN and OpenVINO."""
    import numpy as np
    import openvino
    import torch
    from openvino import opset13 as operators

    M, K, N = GEMM
    torch.set_num_threads(job["threads"])
    rng = np.random.default_rng(SEED)
    rows, matrix = (rng.standard_normal(size, dtype=np.float32) for size in ((M, K), (N, K)))

    def speed(run: Callable[[], Any]) -> float:
        times = []
        until = time.perf_counter() + 1.5
        while time.perf_counter() < until or len(times) < 5:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return 2 * M * K * N / min(times) / 1e9

    def through_openvino(hint: str) -> float:
        given = operators.parameter([M, K], np.float32)
        model = openvino.Model([operators.matmul(given, operators.constant(matrix), False, True)], [given], "gemm")
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": job["threads"], "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        return speed(lambda: request.infer([rows], share_inputs=True, share_outputs=True))

    def through_torch(dtype: torch.dtype) -> float:
        left, right = (torch.from_numpy(part).to(dtype) for part in (rows, matrix))
        return speed(lambda: torch.nn.functional.linear(left, right))

    weights = torch.ops.onednn.qlinear_prepack(torch.randint(-127, 127, (N, K), dtype=torch.int8), [M, K])
    scales, zeros = torch.full((N,), 0.01), torch.zeros(N, dtype=torch.int32)
    small = torch.randint(0, 255, (M, K), dtype=torch.uint8)
    answer = (None, 1.0, 0, torch.float32, "none", [], "")
    with torch.inference_mode():
        return {
            "fp32": max(through_torch(torch.float32), through_openvino("f32")),
            "bf16": max(through_torch(torch.bfloat16), through_openvino("bf16")),
            "int8": speed(lambda: torch.ops.onednn.qlinear_pointwise(small, 0.01, 0, weights, scales, zeros, *answer)),
        }


# The process: it does as it is told, line by line.


def peak_memory() -> float:
    """The largest resident memory of this process so far, in MB."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def timed(classify: Classifier, texts: list[str], seconds: float) -> dict[str, Any]:
    """Classify the texts as often as fits into `seconds`, at least once."""
    began, passes = time.perf_counter(), 0
    while not passes or time.perf_counter() - began < seconds:
        labels, passes = classify(texts), passes + 1
    return {"seconds": (time.perf_counter() - began) / passes, "labels": labels}


def serve() -> None:
    """A child: reads its job, then one order a line, and answers each with one line of JSON."""
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print shall not disturb the answers
    classify: Classifier | None = None
    job: Job = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            job = order.get("job", job)
            if order["do"] == "open":
                method = METHODS[order["method"]]
                classify = method.open(job, **method.settings)
                for texts in job["texts"].values():
                    classify(texts[:32])  # warm
                answer: Any = {"precision": job.get("precision", method.precision)}
            elif order["do"] == "measure":
                assert classify is not None
                answer = timed(classify, job["texts"][order["kind"]], order["seconds"]) | {"megabytes": peak_memory()}
            else:
                doing: dict[str, Callable[[Job], Any]] = {"build": build, "peaks": gemm_peaks}
                preparations = {name: one.prepare for name, one in METHODS.items() if one.prepare}
                answer = (doing | preparations)[order["do"]](job)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a rival dies of is its row's text
            lines = [part.strip() for part in str(error).splitlines() if part.strip()]
            answer = {"error": f"{type(error).__name__}: {' '.join(lines)[:300]}"}
        wire.write(json.dumps(answer) + "\n")
        wire.flush()


if __name__ == "__main__":
    serve()
