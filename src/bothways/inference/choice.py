"""Chooses and opens the engine that runs a model."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

from bothways.errors import CheckpointError, MissingDependencyError, OptionError
from bothways.hardware import Device, cores, multiplies_bf16, multiplies_bytes, processor
from bothways.inference.engines.by_length import ByLength
from bothways.inference.engines.engine import ABLE, UNBATCHED_FROM, Engine, Name, Precision
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.engines.openvino import OpenVinoEngine, runs_here, why_no_openvino
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FOLDER, ONNX_PRECISIONS, ExportRecord, OnnxPrecision
from bothways.inference.plan import TUNED, Plan, default_plan, read_tuned, tuned_records
from bothways.inference.plan_files import (
    compiled_layers,
    export_for,
    files_of,
    is_compiled,
    onnx_precision_of,
)
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.tasks import Task

LARGE = 40_000_000  # multiplications a token: from here on OpenVINO is faster with short windows, too


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
    first, later = plan.parts()
    if later.engine == "openvino" and not runs_here():
        reporter.note(f"OpenVINO was used before this process was forked and cannot run here: {first} runs all texts")
        return open_engine(model_directory, reporter, plan=first, threads=threads, device=device)
    if plan.from_tokens == 1:
        first, later = later, first
    opened = open_engine(model_directory, reporter, plan=first, threads=threads, device=device)
    export, _ = choose(model_directory, reporter, later.engine, later.precision)  # what it lacks is said now
    onnx_precision = onnx_precision_of(later)
    if export is not None and onnx_precision is not None:
        export.file(onnx_precision)  # the same of a file that is not there
    absolute = replace(model_directory, path=model_directory.path.absolute())
    files = files_of(absolute, export, later)
    return ByLength(
        opened,
        partial(_open_unchanged, absolute, later, files, threads=threads, device=device),
        plan,
        other_workers=min(later.workers, threads or later.workers),
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
    if files_of(model_directory, export_for(model_directory)[0], plan) != files:
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
        if compiled is not None and is_compiled(compiled):
            numbers["compiled"] = compiled
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


def tuned_with(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> dict[str, Any]:
    """What a measured plan holds for besides: the version of its engine, and the files that were measured."""
    from importlib.metadata import version  # slow to import, and most predictions do without a measured plan

    found = {"version": version(plan.engine)} | files_of(model_directory, export, plan)
    compiled = compiled_layers(model_directory, export, plan)
    if compiled is not None:
        found["compiled layers"] = compiled.name if is_compiled(compiled) else None
    return found


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
            return None, f"this version of bothways cannot run the tuned plan, {part}"
        if importlib.util.find_spec(part.engine) is None:
            continue  # `_plans` says so
        for name, value in tuned_with(model_directory, export, part).items():
            if name == "compiled layers" and value is None and measured.get(name) is not None:
                return None, f"the compiled layers of the tuned plan, {part}, are not in the cache of this user"
            if measured.get(name, value) != value:
                versions = f"another version of {part.engine} ({measured[name]}, now {value})"
                what = {"version": versions, "onnx_model": "another ONNX model"}.get(name, f"other {name}")
                return None, f"the tuned plan, {part}, was measured with {what}, so it is not used"
    return plan, None


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
                f"the {onnx_precision} ONNX model was rejected ({rejected}); it is used because it was requested"
            )
    first = next((onnx_precision for onnx_precision in order if precision in (None, onnx_precision)), "")
    if first.startswith("int8") and not multiplies_bytes():
        reporter.note(
            "this processor does not seem to support exact int8 products (VNNI): int8 may be less accurate and slower; "
            f"bothways export {export.directory} --precision fp32 writes an exact ONNX model"
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
            what = "this engine or precision" if engine or precision else "without an accepted ONNX model, prediction"
            return MissingDependencyError(
                f"{directory}: {what} needs PyTorch (pip install 'bothways[train]') and {WEIGHTS}; --precision selects "
                f"an exported ONNX model, which needs neither: {there}"
            )
        return MissingDependencyError(
            f"{directory}: {reason or 'no ONNX model was exported for this task'}; running it needs PyTorch "
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
        f"{directory}: no ONNX model for {wanted}; {reason or f'exported models: {there}'} "
        f"(bothways export {directory} --precision {onnx_precision} makes one)"
    )
