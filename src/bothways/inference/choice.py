"""Chooses and opens the engine that runs a model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from bothways.errors import BothwaysError, CheckpointError, MissingDependencyError, OptionError
from bothways.hardware import Device, cores, multiplies_bf16, multiplies_bytes, processor
from bothways.inference.engines.by_length import ByLength
from bothways.inference.engines.engine import (
    ABLE,
    COMPILED,
    UNBATCHED_FROM,
    Engine,
    Name,
    Precision,
)
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.engines.openvino import OpenVinoEngine, why_no_openvino
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FOLDER, ONNX_PRECISIONS, ExportRecord, OnnxPrecision, sample_of
from bothways.inference.plan import TUNED, Plan, default_plan, read_tuned, tuned_records
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.storage import user_cache
from bothways.tasks import Task

LARGE = 40_000_000  # multiplications a token: from here on OpenVINO is faster with short windows, too
COMPILED_FORMAT = 1  # of compiled layers; raise it when what is compiled changes


def open_engine(
    model_directory: ModelDirectory,
    reporter: Reporter,
    *,
    engine: Name | None = None,
    precision: Precision | None = None,
    plan: Plan | None = None,
    threads: int | None = None,
    device: Device | None = None,
) -> Engine:
    """The engine for a model directory.

    Without `engine` and `precision` the plan that `bothways tune` found fastest on this processor; without one the
    first that is there of an accepted int8 model, an fp32 model (both in ONNX Runtime), PyTorch in bf16 where the
    processor has it, PyTorch in fp32. With one of them, the first that fits. `plan` says all. On a processor without
    exact 8-bit products the fp32 model comes first. Beside the int8 model, an int8-static one runs long windows, and
    all windows of a large model, in OpenVINO where that is installed and the processor has bf16.

    `threads` is how many cores are used (else all that this process may use). `device` "cuda" runs PyTorch on the
    GPU, "cpu" nothing there, "auto" (None) PyTorch on a GPU if one is there and PyTorch is chosen.

    Raises `OptionError` for what no engine can, `CheckpointError` for what was not exported,
    `MissingDependencyError` for what is not installed.
    """
    if device == "cuda" and plan is None and engine is None:
        engine = "torch"
    _check(engine, precision, plan, threads, device)
    wanted = (engine, precision) if plan is None else (plan.engine, plan.precision)
    export, best = choose(model_directory, reporter, *wanted)
    best = best if plan is None else plan
    if threads is not None and threads > cores():
        reporter.note(f"threads is {threads:,}, and this process may use {cores()} core(s): {cores()} are used")
        threads = cores()
    if best.long is not None:
        return _open_by_length(model_directory, reporter, best, threads=threads, device=device)
    if threads is not None and best.workers > threads:
        best = replace(best, workers=threads)
    if best.engine == "torch":
        opened = _open_torch(
            model_directory,
            reporter,
            best,
            export,
            precision_asked=wanted[1] is not None,
            device=device,
            threads=threads,
        )
        if not (export and export.models) and wanted == (None, None):  # said when the weights are known to be good
            reporter.note(
                f"no ONNX model for {model_directory.task.name} in {model_directory.path}: PyTorch runs it, more slowly"
            )
        return opened
    assert export is not None
    pad_id = model_directory.config.pad_token_id
    numbers: dict[str, Any] = {"workers": best.workers, "max_tokens": best.max_tokens, "threads": threads}
    if best.engine == "openvino":
        multiplications = model_directory.config.multiplications
        return OpenVinoEngine(export, best.precision, pad_id, multiplications=multiplications, **numbers)
    onnx_precision = next(onnx_precision for onnx_precision in ONNX_PRECISIONS if onnx_precision == best.precision)
    return OnnxRuntimeEngine(export, export.file(onnx_precision), onnx_precision, pad_id, **numbers)


def _open_by_length(
    model_directory: ModelDirectory, reporter: Reporter, plan: Plan, *, threads: int | None, device: Device | None
) -> Engine:
    short, long = plan.parts()
    opened = open_engine(model_directory, reporter, plan=short, threads=threads, device=device)
    export, _ = choose(model_directory, reporter, long.engine, long.precision)  # what it lacks is said now
    onnx_precision = onnx_precision_of(long)
    if export is not None and onnx_precision is not None:
        export.file(onnx_precision)  # the same of a file that is not there
    absolute = replace(model_directory, path=model_directory.path.absolute())
    files = _files_of(absolute, export, long)
    return ByLength(
        opened,
        partial(_open_unchanged, absolute, long, files, threads=threads, device=device),
        from_tokens=plan.from_tokens,
        long_workers=min(long.workers, threads or long.workers),
        long_name=str(long),
    )


def _open_unchanged(
    model_directory: ModelDirectory,
    plan: Plan,
    files: dict[str, str | None],
    *,
    threads: int | None,
    device: Device | None,
) -> Engine:
    """The engine of a plan; raises `CheckpointError` if the files that it reads are not those of before."""
    opened = open_engine(model_directory, Reporter(quiet=True), plan=plan, threads=threads, device=device)
    if _files_of(model_directory, export_for(model_directory)[0], plan) != files:
        raise CheckpointError(f"{model_directory.path}: its files were replaced since it was loaded; load it again")
    return opened


def _open_torch(
    model_directory: ModelDirectory,
    reporter: Reporter,
    plan: Plan,
    export: ExportRecord | None,
    *,
    precision_asked: bool,
    device: Device | None,
    threads: int | None,
) -> Engine:
    """PyTorch: in fused layers on a CPU, else, and in fp32, in plain ones."""
    from bothways.inference.engines.fused import open_fused_engine
    from bothways.inference.engines.torch import open_torch_engine
    from bothways.model.forward import device_of

    path, task = model_directory.path, model_directory.task
    if plan.precision != "fp32" and device_of(device or "auto").type == "cpu":
        precision: Literal["bf16", "int8-static"] = "bf16" if plan.precision == "bf16" else "int8-static"
        ranges = {} if export is None else export.ranges
        numbers: dict[str, Any] = {"workers": plan.workers, "max_tokens": plan.max_tokens, "threads": threads}
        compiled = compiled_layers(model_directory, export, plan)
        numbers["compiled"] = compiled if compiled is not None and _is_compiled(compiled) else None
        fused = open_fused_engine(path, task.head, task.outputs, precision, ranges, reporter, **numbers)
        if fused is not None:
            return fused
    bits: Literal["bf16", "fp32"] | None = "bf16" if plan.precision == "bf16" else "fp32"
    if not precision_asked or plan.precision == "int8-static":
        bits = None  # the best of the device
    return open_torch_engine(path, task.head, task.outputs, bits, reporter, device=device or "auto", threads=threads)


def choose(
    model_directory: ModelDirectory, reporter: Reporter, engine: str | None = None, precision: str | None = None
) -> tuple[ExportRecord | None, Plan]:
    """What `open_engine` would run, and the record of the ONNX models if they are of this model and task."""
    export, reason = export_for(model_directory)
    if reason is not None:
        reporter.note(reason)
    tuned, unfit = _tuned(model_directory, export)
    plans = _plans(model_directory, export, reporter, engine, precision, tuned)
    if not plans:
        raise _nothing_fits(model_directory, export, reason, engine, precision)
    if unfit is not None and (engine, precision) == (None, None):
        used = f"{plans[0].engine} {plans[0].precision}"
        reporter.note(f"{unfit}; {used} is used instead; run bothways tune {model_directory.path} FILE")
    return export, plans[0]


def _check(
    engine: str | None, precision: str | None, plan: Plan | None, threads: int | None, device: str | None
) -> None:
    """Raise `OptionError` for options that mean nothing, or contradict each other."""
    if not isinstance(plan, Plan | None):
        raise OptionError(f"plan is {plan!r}, expected a Plan(engine, precision, workers, max_tokens)")
    if plan is not None and plan.long is not None:
        _check(None, None, plan.long, None, device)
    known = list(dict.fromkeys(each for able in ABLE.values() for each in able))
    for name, value, able in (
        ("engine", engine if plan is None else plan.engine, list(ABLE)),
        ("precision", precision if plan is None else plan.precision, known),
        ("device", device, list(get_args(Device))),
    ):
        if value is not None and value not in able:
            raise OptionError(f"{name} {value!r} is not one of {', '.join(able)}")
    for name, asked, planned in (
        ("engine", engine, plan and plan.engine),
        ("precision", precision, plan and plan.precision),
    ):
        if asked is not None and planned is not None and asked != planned:
            raise OptionError(f"{name} is {asked!r}, and the plan says {planned!r}; give one of them")
    runs, bits = (engine, precision) if plan is None else (plan.engine, plan.precision)
    if runs is not None and bits is not None and bits not in ABLE[runs]:
        raise OptionError(f"{runs} does not run {bits}; it runs {', '.join(ABLE[runs])}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise OptionError(f"threads is {threads!r}, expected a whole number from 1")
    if device == "cuda" and runs not in (None, "torch"):
        raise OptionError(f"device 'cuda' is for PyTorch (engine 'torch'); {runs} runs on the CPU")


def tuned_key(task: Task) -> str:
    """What a measured plan holds for: this processor, and ONNX models with this head."""
    return f"{processor()}; {task.head} {task.outputs}"


def onnx_precision_of(plan: Plan) -> OnnxPrecision | None:
    """The ONNX model that a plan takes its numbers from; None for one that runs the weights themselves."""
    if plan.engine == "torch":
        return "int8-static" if plan.precision == "int8-static" else None
    return next((name for name in ONNX_PRECISIONS if name == plan.precision), "fp32")  # bf16 is made of fp32


def _files_of(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> dict[str, str | None]:
    """The hashes of what a plan reads: its ONNX model, and the weights if PyTorch runs them (of a sample of them)."""
    onnx_precision, weights = onnx_precision_of(plan), model_directory.path / WEIGHTS
    onnx_model = export.models.get(onnx_precision) if export is not None and onnx_precision is not None else None
    return {
        "onnx_model": None if onnx_model is None else onnx_model.sha256,
        "weights": sample_of(weights) if plan.engine == "torch" and weights.is_file() else None,
    }


def tuned_with(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> dict[str, Any]:
    """What a measured plan holds for besides: the version of its engine, and the files that were measured."""
    from importlib.metadata import version  # slow to import, and most predictions do without a measured plan

    found = {"version": version(plan.engine)} | _files_of(model_directory, export, plan)
    compiled = compiled_layers(model_directory, export, plan)
    if compiled is not None:
        found["compiled layers"] = compiled.name if _is_compiled(compiled) else None
    return found


def compiled_layers(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> Path | None:
    """Where compiled layers of a plan are, or would be: in the cache of this user, as libraries are code.

    None for a plan that has none, and for a user without a home.
    """
    cache = user_cache()
    if plan.engine != "torch" or plan.precision == "fp32" or cache is None:
        return None
    from importlib.metadata import version

    facts = [COMPILED_FORMAT, processor(), version("torch"), plan.precision, model_directory.task.head]
    text = json.dumps([*facts, _files_of(model_directory, export, plan)])
    return cache / "compiled" / hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_compiled(path: Path) -> bool:
    return all(path.with_suffix(suffix).is_file() for suffix in COMPILED)


def compile_plan(model_directory: ModelDirectory, plan: Plan, reporter: Reporter) -> None:
    """Compile the layers that a plan of PyTorch in bf16 or int8-static runs; takes a minute, and a C++ compiler.

    Raises `BothwaysError` if that fails.
    """
    from bothways.inference.engines.compiled import compile_layers
    from bothways.inference.engines.torch import trained_model

    export, task = export_for(model_directory)[0], model_directory.task
    path = compiled_layers(model_directory, export, plan)
    if path is None:
        raise BothwaysError("this user has no home directory to keep compiled layers in")
    model = trained_model(model_directory.path, task.head, task.outputs, reporter)
    precision: Literal["bf16", "int8-static"] = "bf16" if plan.precision == "bf16" else "int8-static"
    compile_layers(model, precision, {} if export is None else export.ranges, path)


def remove_compiled(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> None:
    """Remove the compiled layers of a plan, if there are any."""
    path = compiled_layers(model_directory, export, plan)
    if path is not None:
        for suffix in COMPILED:
            path.with_suffix(suffix).unlink(missing_ok=True)


def _tuned(model_directory: ModelDirectory, export: ExportRecord | None) -> tuple[Plan | None, str | None]:
    """The plan that was measured here, if nothing has changed since; else why those that are there are not used."""
    path = model_directory.path / FOLDER / TUNED
    if not path.is_file():
        return None, None
    key, records = tuned_key(model_directory.task), tuned_records(model_directory.path)
    if not records:
        return None, f"{path} is damaged, so no tuned plan can be read"
    if key not in records:
        head = key.removeprefix(processor())
        others = [name.removesuffix(head) for name in records if name.endswith(head)]
        return None, f"the tuned plans here are for other processors ({'; '.join(others)})" if others else None
    plan = read_tuned(model_directory.path, key)
    if plan is None:
        return None, f"{path} is damaged: the tuned plan of this processor cannot be read"
    record = records[key]
    for part, measured in zip(plan.parts(), (record, record.get("long")), strict=False):
        if part.precision not in ABLE.get(part.engine, ()):
            return None, f"the tuned plan, {part}, is none that this version of bothways runs"
        if importlib.util.find_spec(part.engine) is None:
            continue  # `_plans` says so
        for name, value in tuned_with(model_directory, export, part).items():
            if name == "compiled layers" and value is None and measured.get(name) is not None:
                return None, f"the compiled layers of the tuned plan, {part}, are not in the cache of this user"
            if measured.get(name, value) != value:
                return None, (
                    f"the tuned plan, {part}, was measured with another {name} ({measured[name]}, now {value}), so it "
                    "is not used"
                )
    return plan, None


def export_for(model_directory: ModelDirectory) -> tuple[ExportRecord | None, str | None]:
    """The ONNX models, if they are for what the task asks; else why those that are there are not used."""
    export, task = ExportRecord.read(model_directory.path), model_directory.task
    reason = export.stale(model_directory.config) if export is not None else None
    if reason is not None and not (model_directory.path / WEIGHTS).is_file():
        raise CheckpointError(f"{reason}; restore the files that belong together")
    if reason is not None:
        return None, f"{reason}, so they are not used; bothways export {model_directory.path} makes others"
    if export is not None and (export.head, export.outputs) != (task.head, task.outputs):
        return None, (
            f"the ONNX models in {model_directory.path} answer with the head {export.head!r}, {task.name} asks for "
            f"{task.head!r}, so they are not used; export them: bothways export "
            f"{model_directory.path} --task {task.name}"
        )
    return export, None


def _plans(
    model_directory: ModelDirectory,
    export: ExportRecord | None,
    reporter: Reporter,
    engine: str | None,
    precision: str | None,
    tuned: Plan | None,
) -> list[Plan]:
    """What can be run here and fits, best first."""
    parts = () if tuned is None else tuned.parts()
    if any(engine not in (None, part.engine) or precision not in (None, part.precision) for part in parts):
        tuned, parts = None, ()
    onnx_models = [] if export is None else _usable(export, reporter, precision)
    found: list[tuple[str, str]] = [("onnxruntime", onnx_precision) for onnx_precision in onnx_models]
    if export is not None and "openvino" in (engine, *(part.engine for part in parts)):
        reason = why_no_openvino()
        if reason is not None and engine == "openvino":
            raise MissingDependencyError(reason)
        if reason is not None:
            reporter.note(f"{reason}; a slower plan is used instead of the tuned one, {tuned}")
        else:
            able = {"int8-static": "int8-static", "bf16": "fp32", "fp32": "fp32"}
            found += [("openvino", kind) for kind, onnx_precision in able.items() if onnx_precision in onnx_models]
    has_weights = (
        export is None or (model_directory.path / WEIGHTS).is_file()
    )  # else the ONNX model may be all there is
    if importlib.util.find_spec("torch") is not None and has_weights:
        found += [("torch", kind) for kind in (("bf16", "fp32") if multiplies_bf16() else ("fp32", "bf16"))]
        found += [("torch", "int8-static")] if "int8-static" in onnx_models else []
    plans = [default_plan(name, kind) for name, kind in found if engine in (None, name) and precision in (None, kind)]
    if (engine, precision, tuned) == (None, None, None) and plans and {"int8", "int8-static"} <= set(onnx_models):
        plans[0] = _divided(plans[0], model_directory.config.multiplications)
    if tuned is not None and all((part.engine, part.precision) in found for part in parts):
        plans.insert(0, tuned)
    elif tuned is not None:
        reporter.note(f"the tuned plan, {tuned}, cannot be run here any more; run bothways tune again")
    return plans


def _divided(plan: Plan, multiplications: int) -> Plan:
    """The default plan of the int8 model, with OpenVINO for the windows that it runs faster."""
    if (plan.engine, plan.precision) != ("onnxruntime", "int8") or not openvino_is_faster():
        return plan
    from_tokens = 1 if multiplications >= LARGE else UNBATCHED_FROM
    return replace(plan, long=default_plan("openvino", "int8-static"), from_tokens=from_tokens)


def openvino_is_faster() -> bool:
    """Whether OpenVINO can be used and runs long windows faster than ONNX Runtime, which has no bf16 attention."""
    return multiplies_bf16() and why_no_openvino() is None


def _usable(export: ExportRecord, reporter: Reporter, precision: str | None) -> list[OnnxPrecision]:
    """The ONNX models to choose from, best first; a rejected one only if `precision` names it."""
    best: list[OnnxPrecision] = ["int8", "fp32", "int8-static"]
    if not multiplies_bytes():
        best = ["fp32", "int8", "int8-static"]
    order: list[OnnxPrecision] = []
    for onnx_precision in (onnx_precision for onnx_precision in best if onnx_precision in export.models):
        rejected = export.models[onnx_precision].rejected
        if rejected is None or precision == onnx_precision:
            order.append(onnx_precision)
        if rejected is not None and precision is None:
            reporter.note(f"the {onnx_precision} ONNX model is not used: {rejected}")
        elif rejected is not None and precision == onnx_precision:
            reporter.note(
                f"the {onnx_precision} ONNX model was rejected ({rejected}); it runs because it was asked for"
            )
    first = next((onnx_precision for onnx_precision in order if precision in (None, onnx_precision)), "")
    if first.startswith("int8") and not multiplies_bytes():
        reporter.note(
            "this processor has no exact 8-bit products (VNNI), as far as is known: answers may be off, and slower "
            f"than they could; bothways export {export.directory} --precision fp32 makes an ONNX model that is exact"
        )
    return order


def _nothing_fits(
    model_directory: ModelDirectory,
    export: ExportRecord | None,
    reason: str | None,
    engine: str | None,
    precision: str | None,
) -> Exception:
    directory, there = model_directory.path, ", ".join(export.models) if export and export.models else "none"
    if engine in (None, "torch") and precision in (None, "bf16", "fp32"):
        if export is not None:
            return MissingDependencyError(
                f"{directory}: what was asked for takes PyTorch (pip install 'bothways[train]') and {WEIGHTS}; "
                f"exported, and so able to run without both, are: {there}"
            )
        return MissingDependencyError(
            f"{directory}: {reason or 'there is no exported graph for this task'}; running it needs PyTorch "
            "(pip install 'bothways[train]'); with it, bothways export writes an ONNX model that runs without it"
        )
    onnx_precision = (
        precision
        if precision in ONNX_PRECISIONS
        else "int8-static"
        if engine == "openvino" and not precision
        else "fp32"
    )
    wanted = " ".join(each for each in (engine, precision) if each)
    return CheckpointError(
        f"{directory}: no ONNX model that {wanted} could run; {reason or f'exported are: {there}'} "
        f"(bothways export {directory} --precision {onnx_precision} makes one)"
    )
