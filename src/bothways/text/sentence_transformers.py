"""Read the settings of a sentence-transformers directory: modules, pooling, length, normalization."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bothways.errors import CheckpointError
from bothways.text.modelfiles import parse_json, read_json

MODULES: Final = "modules.json"
POOLING: Final = "1_Pooling"
SENTENCE_FILES: Final = (
    MODULES,
    f"{POOLING}/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
MODES: Final = {  # keys of versions before 6 -> values of the later key `pooling_mode`
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
NO_LENGTH: Final = 10**9  # larger values in tokenizer_config.json mean "unknown"


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """How a directory embeds text: pooling, then optional L2 normalization; longer texts are truncated."""

    pooling: Literal["mean", "cls"]
    normalize: bool
    max_length: int | None  # in tokens, special tokens included; None: the model's maximum


def read_sentence_settings(directory: Path, pooling: str | None = None) -> SentenceSettings | None:
    """Return the settings of a sentence-transformers directory, or None if it is not one; `pooling` overrides its own.

    Raises CheckpointError for unsupported modules and settings, because the vectors would differ.
    """
    root = _root(directory)
    if root is None:
        return None
    where = root / MODULES
    modules = _modules(root)
    kinds = [kind for kind, _ in modules]
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize", "Dropout"):
            raise CheckpointError(
                f"{where}: has the module {kind}, bothways computes Transformer, Pooling and Normalize; use "
                f"sentence-transformers, or remove {kind} from {MODULES} if vectors without it are wanted"
            )
    if kinds[:2] != ["Transformer", "Pooling"] or "Transformer" in kinds[1:] or "Pooling" in kinds[2:]:
        raise CheckpointError(f"{where}: has the modules {', '.join(kinds)}, expected Transformer, Pooling, Normalize")
    settings = _transformer_settings(directory)
    task, kwargs = settings.get("transformer_task"), settings.get("processing_kwargs")
    if task not in (None, "feature-extraction"):
        raise CheckpointError(f"{directory}: was made for {task}, expected feature-extraction, to give vectors")
    if kwargs:
        raise CheckpointError(f"{directory}: processing_kwargs is {kwargs!r}, which is not followed here; remove it")
    _check_prompts(root / "config_sentence_transformers.json")
    length = settings.get("max_seq_length")
    if length is None:
        length = read_json(directory / "tokenizer_config.json").get("model_max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int | float) or length < 3):
        raise CheckpointError(f"{directory}: max_seq_length is {length!r}, expected a number of tokens from 3")
    return SentenceSettings(
        pooling=_pooling(root / modules[1][1] / "config.json", pooling),
        normalize="Normalize" in kinds,
        max_length=int(length) if length is not None and length < NO_LENGTH else None,
    )


def lowercases(directory: Path) -> bool:
    """Whether a sentence-transformers directory lowercases texts before tokenization."""
    value = _transformer_settings(directory).get("do_lower_case")
    if not isinstance(value, bool | None):
        raise CheckpointError(f"{directory}: do_lower_case is {value!r}, expected true or false")
    return bool(value)


def _root(directory: Path) -> Path | None:
    """Find the root: the directory, or its parent if that lists the directory as its first module; else None."""
    above = directory.resolve().parent
    if (directory / MODULES).is_file():
        return directory
    if (above / MODULES).is_file() and _modules(above)[0][1] == directory.resolve().name:
        return above
    alone = (directory / POOLING / "config.json").is_file() or bool(_transformer_settings(directory))
    return directory if alone else None


def _modules(root: Path) -> list[tuple[str, str]]:
    """Return class and folder of each module, in order; Transformer and Pooling if there is no modules.json."""
    path = root / MODULES
    if not path.is_file():
        return [("Transformer", ""), ("Pooling", POOLING)]
    found = parse_json(path)
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise CheckpointError(f"{path}: expected a JSON list of modules")
    modules = []
    for one in found:
        package, _, kind = str(one.get("type")).rpartition(".")
        folder = one.get("path", "")
        if not isinstance(folder, str) or Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise CheckpointError(f"{path}: the path of {kind} is {folder!r}, expected a folder in this directory")
        own = package.split(".")[0] == "sentence_transformers"
        modules.append((kind if own else f"{package}.{kind}", folder))
    return modules


def _transformer_settings(directory: Path) -> dict[str, Any]:
    """Read sentence_bert_config.json; older versions name the file after the model family."""
    path = next(iter(sorted(directory.glob("sentence_*_config.json"))), directory / "sentence_bert_config.json")
    return read_json(path)


def _pooling(path: Path, wanted: str | None) -> Literal["mean", "cls"]:
    raw = read_json(path)
    mode: Any = raw.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in MODES.items() if raw.get(key)]
    modes = [mode] if isinstance(mode, str) else mode
    modes = modes or ["mean"]
    if not path.is_file() and path.parent.name != POOLING and wanted is None:
        raise CheckpointError(f"{path}: not there, though {MODULES} names it; copy it, or say which pooling")
    if wanted in ("mean", "cls"):
        return wanted  # type: ignore[return-value]
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise CheckpointError(
        f"{path}: pooling is {' and '.join(map(str, modes)) if isinstance(modes, list) else repr(modes)}, bothways "
        "computes mean or cls; choose one of these with the option pooling, or use sentence-transformers"
    )


def _check_prompts(path: Path) -> None:
    """Raise CheckpointError if the settings add a prompt to texts or truncate vectors by default."""
    raw = read_json(path)
    name, prompts = raw.get("default_prompt_name"), raw.get("prompts")
    if name is not None and (not isinstance(prompts, dict) or prompts.get(name) != ""):
        raise CheckpointError(
            f"{path}: default_prompt_name is {name!r}, so texts get a prompt, which bothways does not add; set it to "
            "null and begin the texts with the prompt"
        )
    if raw.get("truncate_dim") is not None:
        raise CheckpointError(
            f"{path}: truncate_dim is {raw['truncate_dim']!r}, bothways gives whole vectors; remove it"
        )
