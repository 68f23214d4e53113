"""Pretrains a model on plain text; other jobs can use its directory as a base."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.errors import CheckpointError, OptionError
from bothways.hardware import Device
from bothways.inference.model_directory import CHECKPOINT, RUN
from bothways.jobs.directory import (
    guarded,
    publish,
)
from bothways.jobs.frame import facts_of_base, require, training_frame
from bothways.jobs.settings import budget, hash_of, name_of, options_from
from bothways.model.catalogue import CATALOGUE, find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.progress import Reporter, clock
from bothways.render.report import Report, write_curves, write_report
from bothways.storage import write_text
from bothways.text.tokenizer import Tokenizer
from bothways.training.recipe import PretrainRecipe

if TYPE_CHECKING:
    from bothways.model.pretraining import PretrainModel

SHARDS, REPORT, CURVES = "shards", "report.html", "curves.png"
# Layers, hidden size and heads, from Turc et al. 2019 and Devlin et al. 2019. The intermediate size is 4 * hidden size.
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


@dataclass(frozen=True, slots=True)
class PretrainingRun:
    """A finished pretraining run: model directory, last evaluation on held-out text, time in seconds."""

    directory: Path
    dev: dict[str, float]
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    first: bool = True  # whether this is the first training process

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in self.dev.items())
        return f"<Pretraining in {self.directory}, {self.seconds:.0f} s: {figures or 'not evaluated'}>"

    def as_json(self) -> dict[str, Any]:
        """Return directory, held-out metrics and seconds as a JSON object."""
        return {"directory": str(self.directory), "dev": self.dev, "seconds": self.seconds}


def pretrain(
    corpus: Sequence[str | Path],
    *,
    out: str | Path,
    vocab: str | Path | None = None,
    size: str | Path | None = None,
    base: str | Path | None = None,
    shards: str | Path | None = None,
    recipe: PretrainRecipe | None = None,
    device: Device = "auto",
    time_budget: float | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> PretrainingRun:
    """Pretrain a model on plain text (masked tokens, next sentence), from scratch or from `base`.

    `vocab` is a directory of `bothways vocab` or a name that `bothways models` lists; `size` is one of `SIZES`
    (default "mini") or a config.json. With `base`, both come from the base. The corpus is tokenized once, into `shards`
    (default: a folder of `out`), and reused if it exists. Under torchrun, all processes train one model. Fields of
    `PretrainRecipe` can be keyword arguments: `pretrain(..., steps=1000)`; they override those of `recipe`. `device`
    "auto" is a GPU if PyTorch finds one. `time_budget` is in seconds (or "5m") and replaces `steps`. With `overwrite`,
    a model in `out` stays until the new one is complete.

    Raises `DataError` for the corpus, `OptionError` for the options, or if another run is writing to `out`,
    `CheckpointError` for parts of different models, `InterruptedRunError` after Ctrl-C or SIGTERM.
    """
    also = ("out", "vocab", "size", "base", "shards", "device", "time_budget", "resume", "overwrite", "reporter")
    (recipe,) = options_from(options, recipe or PretrainRecipe(), also=also)
    assert isinstance(recipe, PretrainRecipe)
    reporter, out = reporter or Reporter(), Path(out)
    require("pretraining", "torch", "matplotlib", "jinja2")
    if not corpus:
        raise OptionError("no corpus; give at least one file of plain text")
    time_budget = budget(time_budget)
    directory = None if base is None else find_model(base)
    if directory is not None and size is not None:
        raise OptionError(f"--size {size} with --base {base}: the base already has a size; leave out one of them")
    size = "mini" if size is None else size
    facts = facts_of_base(base, directory, out)
    tokenizer = _vocabulary(vocab, directory)
    config = _config(size, tokenizer) if directory is None else EncoderConfig.read(directory)[0]
    config.check_vocabulary(tokenizer.vocab_size, directory or Path(size))
    longest = max(length for length, _ in recipe.stages())
    if longest > config.max_length:
        raise OptionError(f"max_length is {longest}; a model of this shape reads at most {config.max_length} tokens")

    # Import PyTorch here, which takes seconds, after the options are validated.
    import torch

    from bothways.model.checkpoint import load_for_pretraining
    from bothways.model.encoder import initialize
    from bothways.model.pretraining import PretrainModel
    from bothways.training.corpus import corpus_identity, open_corpus
    from bothways.training.pretrain import Pretraining as Work
    from bothways.training.train import train

    began = time.monotonic()
    with (
        ExitStack() as held,
        training_frame(
            held, out, reporter, device=device, resume=resume, overwrite=overwrite, besides=(SHARDS,)
        ) as frame,
    ):
        devices, first, folder, reporter = frame.devices, frame.first, frame.work, frame.reporter
        generator = torch.Generator().manual_seed(recipe.seed)
        if directory is None:
            model = PretrainModel(config, pairs=recipe.nsp)
            initialize(model, config, generator)
            lines = [f"{name_of(size)}, new: {_shape(config)}"]
        else:
            model, report = load_for_pretraining(directory, generator, pairs=recipe.nsp)
            lines = report.lines()
        identity = corpus_identity(corpus, tokenizer) if first else {}
        if first:
            text = open_corpus(corpus, tokenizer, shards or out / SHARDS, reporter, identity=identity)
        identity = devices.told(identity)
        if not first:
            text = open_corpus(corpus, tokenizer, shards or out / SHARDS, identity=identity)
        precision = frame.precision(recipe)
        work = Work(model, text, tokenizer, recipe, precision, devices)
        facts |= {
            "corpus": [Path(path).name for path in corpus],
            "documents": text.documents,
            "corpus_tokens": text.tokens,
            "recipe": recipe.as_json(),
            "time_budget": time_budget,
            "begun_with": [line.replace(str(directory), name_of(base)) for line in lines],
            "precision": precision,
            "processes": devices.size,
            "device": devices.device.type,
        }
        if first and not resume:  # do not write anything until everything is validated
            frame.begin(facts)
            tokenizer.save(folder)
        devices.wait()
        for line in lines:
            reporter.say(line)
        if time_budget is not None:
            reporter.say(f"training for {time_budget:g} s; the time budget replaces steps ({recipe.steps:,})")
        reporter.say(f"{text.documents:,} documents, {text.tokens:,} tokens to train on")
        if not text.held_out():
            reporter.note("too little text to hold any out, so there is no evaluation on held-out text")
        parts = _identity(facts, config, text.identity, directory)
        rate = recipe.peak_learning_rate(config, continued=directory is not None)
        state = train(work, work.plan(folder, parts, rate, time_budget), reporter, resume=resume)
        dev: dict[str, float] = next((line["dev"] for line in reversed(state.history) if line.get("dev")), {})
        if first:
            facts |= frame.save_weights(model, state, parts)
            facts |= {"tokens": state.tokens, "tokenizer_sha256": hash_of(folder / "tokenizer.json")}
            _write(folder, model, facts, dev, state.history, out.name, reporter)
            publish(folder, out, reporter)
            (out / CHECKPOINT).unlink(missing_ok=True)
        devices.wait()
    return PretrainingRun(out, dev, time.monotonic() - began, state.history, first)


def _vocabulary(vocab: str | Path | None, base: Path | None) -> Tokenizer:
    if vocab is None and base is None:
        raise OptionError("no vocabulary; make one with bothways vocab CORPUS --out DIR, and give --vocab DIR")
    if vocab is None:
        return Tokenizer.from_directory(base or Path())
    directory = Path(vocab)
    if directory.is_dir():
        tokenizer = Tokenizer.from_directory(directory)
    elif str(vocab) in CATALOGUE:
        tokenizer = Tokenizer.packaged(CATALOGUE[str(vocab)].vocabulary)
    else:
        raise OptionError(f"no vocabulary {str(vocab)!r}: not a directory, and not one of {', '.join(CATALOGUE)}")
    if base is not None and tokenizer.backend.get_vocab() != Tokenizer.from_directory(base).backend.get_vocab():
        raise CheckpointError(f"{vocab}: another vocabulary than that of {base}; leave out --vocab to use its own")
    return tokenizer


def _config(size: str | Path, tokenizer: Tokenizer) -> EncoderConfig:
    """Return the config of a size with a vocabulary: BERT, or RoBERTa if the CLS token is `<s>`."""
    vocabulary = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    if str(size) in SIZES:
        layers, width, heads = SIZES[str(size)]
        shape = EncoderConfig(
            num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
        )
        if tokenizer.specials["cls"][0] == "<s>":
            shape = shape.replace(family="roberta", max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
        return shape.replace(**vocabulary)
    path = Path(size)
    if not path.is_file():
        raise OptionError(f"no size {str(size)!r}: not one of {', '.join(SIZES)}, and not a config.json")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        config = EncoderConfig.from_json(raw, where=str(path))[0].replace(**vocabulary)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a config.json ({error})") from error
    offset = config.rules.position_offset
    if offset and config.pad_token_id + 1 != offset:  # `transformers` counts positions from pad_token_id + 1
        raise CheckpointError(
            f"{path}: a {config.family} needs a vocabulary whose pad token is number {offset - 1}, found "
            f"{config.pad_token_id}; make one with bothways vocab --algorithm bpe"
        )
    return config


def _identity(facts: dict[str, Any], config: EncoderConfig, corpus: str, base: Path | None) -> dict[str, Any]:
    """Return everything that the weights depend on, by name."""
    return {
        "shape": json.dumps(config.to_json()),
        **json.loads(corpus),
        "base": None if base is None else hash_of(base / WEIGHTS),
        **{name: facts[name] for name in ("time_budget", "precision", "processes")},
        **facts["recipe"],
    }


def _write(
    out: Path,
    model: PretrainModel,
    facts: dict[str, Any],
    dev: dict[str, float],
    history: list[dict[str, Any]],
    name: str,
    reporter: Reporter,
) -> None:
    """Write all files of `out` except weights and vocabulary; the config comes last."""
    recipe = ", ".join(f"{name} {value}" for name, value in facts["recipe"].items() if value is not None)
    lines = [
        ("Model", _shape(model.config) + (f", from {facts['base']}" if facts["base"] else ", from scratch")),
        ("Begun with", "; ".join(facts["begun_with"])),
        (
            "Corpus",
            f"{facts['documents']:,} documents, {facts['corpus_tokens']:,} tokens ({', '.join(facts['corpus'])})",
        ),
        ("Recipe", recipe),
        ("Training", f"{facts['steps']:,} updates, {facts['tokens']:,} tokens in {clock(facts['training_seconds'])}"),
        (
            "Speed",
            f"{facts['tokens_per_second']:,.0f} tokens a second, {facts['precision']}, {facts['processes']} processes",
        ),
        ("Machine", facts["machine"]),
        ("Packages", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
    ]
    evaluated = [(line["step"], line["dev"]) for line in history if line.get("dev")]
    report = Report(
        title=f"Pretraining of {name}",
        verdict=", ".join(f"held-out {name.replace('_', ' ')} {value:.3f}" for name, value in dev.items()),
        facts=lines,
        losses=[(line["step"], line["mlm_loss"]) for line in history if "mlm_loss" in line],
        dev={name: [(step, values[name]) for step, values in evaluated] for name in dev if name != "nsp_loss"},
    )
    with guarded("the report could not be written", reporter):
        write_report(out / REPORT, report)
        write_curves(out / CURVES, report)
    card = ["---", "library_name: bothways", "pipeline_tag: fill-mask", "---", f"# {name}, pretrained", ""]
    card += [f"- {fact}: {value}" for fact, value in lines]
    card += ["", "On held-out text: " + (report.verdict or "nothing was held out") + ".", ""]
    write_text(out / "README.md", "\n".join(card))
    write_text(out / RUN, json.dumps(facts, indent=2) + "\n")
    architecture = model.config.rules.class_stem + ("ForMaskedLM" if model.next is None else "ForPreTraining")
    config = model.config.to_json() | {"architectures": [architecture]}
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")


def _shape(config: EncoderConfig) -> str:
    parameters = config.count_parameters() / 1e6
    return (
        f"{config.family} of {config.num_hidden_layers} layers, {config.hidden_size} wide, "
        f"{config.vocab_size:,} tokens, {parameters:.1f} million parameters"
    )
