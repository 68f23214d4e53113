"""The GPU stage of the base (pretrained further), and a teacher and a student for sentiment and for named entities.

    bash recipes/gpu/mpnet.sh work/mpnet
    python recipes/gpu/train.py base DATA work/base
    for task in sentiment ner; do
      python recipes/gpu/train.py teacher DATA work/teacher-$task --task $task --base work/mpnet
      python recipes/gpu/train.py student DATA work/student-$task --task $task --base work/base \
        --teacher work/teacher-$task
    done

DATA is the folder of data sets (docs/models.md lists them). Each job writes a new directory, in it figures.json with
the dev metrics. `--tiny` runs a job on a few examples; that takes a minute or two on a CPU.

- **base**: minilm-l6, pretrained further on masked words and next sentences; pooler and heads are new. A model
  directory with fp16 weights.
- **teacher**: all-mpnet-base-v2 with a new head, fine-tuned on labels. Its logits for all training windows.
- **student**: the base, fine-tuned on labels and on the teacher's probabilities (Hinton et al. 2015); the word
  embeddings stay as they are, so that all models share them. A model directory with fp16 weights. With `--base
  minilm-l6` it starts from the original weights; without `--teacher` it learns from labels alone.

The base and the students that the included models were made from, and the figures of this stage in the docs, come from
one run of nine minutes on one H100 (torch 2.11), all jobs side by side. This is the script of that run in a cleaned
form, which was tried on a CPU with `--tiny` and was not run again on a GPU. What changed:

- bothways reads, tokenizes and evaluates, so that random choices, window edges, the words that are tagged, and the
  pairs of sentences of the corpus are not identical; long reviews of the dev set are read whole;
- time budgets became the numbers of steps and epochs that the run reached in them;
- the classifier of a teacher is MPNet's own (then: a pooler as BERT's, without dropout before it);
- teachers start from the fp32 weights (then: int8, for the upload).
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from task_data import TASK_DATA, TaskData
from torch import Tensor, nn

from bothways.batch import NEVER, Batch, budgeted, make_batch
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.predictor import Predictor
from bothways.model.catalogue import find_model
from bothways.model.checkpoint import load_for_pretraining, load_model, model_tensors, write_safetensors
from bothways.model.config import WEIGHTS
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.heads import TaskModel
from bothways.model.layout import padding_bias
from bothways.model.pretraining import PretrainModel
from bothways.storage import write_text
from bothways.text.tokenizer import Tokenizer
from bothways.training.corpus import Corpus, open_corpus
from bothways.training.masking import MASK_SHARE, RANDOM_SHARE, Masking
from bothways.training.sequences import plan

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRODUCTS = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32  # the type of matrix products
SEED = 1
TINY, TINY_TOKENS = 12, 1024  # with --tiny: examples of each kind, tokens of a batch
LOGITS = "logits.npy"

# Pretraining: 81 million tokens, padding included; the corpus has about 54 million.
CORPUS = ("wiki-00", "books-00", "wiki-01", "wiki-02", "wiki-03", "books-01", "wiki-04", "wiki-05")
STEPS, PAIRS, LENGTH, MAX_MASKED = 1236, 512, 128, 19  # 19 are 15 % of what is in 128 tokens besides special ones
PRETRAIN_LR, DEV_PAIRS = 7e-4, 4096

TEMPERATURE, TEACHER_SHARE = 2.0, 0.5  # of the loss
POOL = 50  # batches that are made of the same random windows, sorted by length


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one model is trained. Dev is evaluated after some shares of all steps, and the best weights are kept."""

    epochs: float
    lr: float
    tokens: int  # of a batch at most, padding included
    rows: int  # windows of a batch at most
    evaluate_at: tuple[float, ...]
    ema: float = 0.0  # decay of averaged weights, which are evaluated beside the others; 0: none


TEACHERS = {
    "sentiment": Schedule(1.5, 3e-5, 8192, 64, (1,)),
    "ner": Schedule(4, 3e-5, 8192, 64, (1,)),
}
STUDENTS = {
    "sentiment": Schedule(4, 2e-4, 6144, 128, (1 / 3, 2 / 3, 1), ema=0.999),
    "ner": Schedule(8, 2e-4, 2048, 128, (1 / 3, 2 / 3, 1), ema=0.999),
}


# The network: modules of bothways on padded batches, with PyTorch's fused attention and dropout.
# B windows, T their longest length (a multiple of 8), K tokens read, H heads, C hidden width, L outputs.


class DeviceDropout(Dropout):
    """Dropout that PyTorch draws on the device of the tensor; that of bothways is drawn on the CPU."""

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        """`x` with elements dropped, same shape."""
        return F.dropout(x, rate)

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:
        """`residual` + dropped `x`."""
        return residual + F.dropout(x, rate)


@dataclass(frozen=True, slots=True)
class Fused:
    """A layout of B rows of T tokens, end to end, for PyTorch's fused attention."""

    rows: int
    heads: int
    bias: Tensor  # (B, 1, 1, T), added to the scores; of the type of products

    @property
    def widths(self) -> tuple[int, ...]:
        """T."""
        return (self.bias.shape[-1],)

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float, relative: Sequence[Tensor] = ()) -> Tensor:
        """(B·T, 3C) -> (B·T, C); `relative` (H, T, T) is added to the scores too."""
        split = qkv.view(self.rows, -1, 3, self.heads, qkv.shape[-1] // 3 // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B, H, T, C / H) each
        rate = rate if isinstance(dropout, DeviceDropout) else 0.0
        bias = self.bias + relative[0].to(self.bias.dtype) if relative else self.bias
        mixed = F.scaled_dot_product_attention(query, key, value, bias, rate)
        return mixed.transpose(1, 2).reshape(len(qkv), -1)


class Network:
    """A model that reads batches. As an engine of `Predictor` it is evaluated as a trained model is served.

    `ids` (V,) are those that MPNet (Song et al. 2020) has for BERT's tokens.
    """

    max_tokens, unbatched_from, workers = 65_536 if DEVICE.type == "cuda" else 2048, NEVER, 1

    def __init__(self, model: TaskModel, ids: Tensor | None = None) -> None:
        self.model, self.ids = model.to(DEVICE), ids

    def __call__(self, batch: Batch, dropout: Dropout = NO_DROPOUT) -> Tensor:
        """A packed batch -> (K, L) logits of the tokens it reads, fp32."""
        B, T = len(batch.lengths), padded(int(batch.lengths[0]))
        mask = np.arange(T) < batch.lengths[:, None]  # (B, T)
        ids, type_ids = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.int64)  # 0 is BERT's [PAD]
        ids[mask], type_ids[mask] = batch.ids, batch.type_ids
        reads = np.repeat(np.arange(B), batch.counts) * T + batch.positions[batch.head_positions]
        tokens, types, lengths, places = map(on_device, (ids.ravel(), type_ids.ravel(), batch.lengths, reads))
        tokens = tokens if self.ids is None else self.ids[tokens]
        layout = Fused(B, self.model.config.num_attention_heads, padding_bias(lengths, T).to(PRODUCTS))
        with autocast():
            positions = torch.arange(T, device=DEVICE).repeat(B)
            return self.model(tokens, types, positions, layout, places, dropout).float()

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the tokens it reads."""
        with torch.no_grad():
            return self(batch).cpu().numpy()


def padded(length: int) -> int:
    """The next multiple of 8: there are fewer shapes, and kernels are faster."""
    return -(-length // 8) * 8


def on_device(array: np.ndarray) -> Tensor:
    """An array as a tensor on the device."""
    return torch.from_numpy(array).to(DEVICE)


def autocast() -> torch.autocast:
    """Within, products are of the type `PRODUCTS`; weights, sums and norms are fp32."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda")


def load_mpnet(directory: Path, head: str, outputs: int) -> Network:
    """MPNet with a new head, which reads windows of BERT's tokens."""
    model, _ = load_model(directory, head, outputs, torch.Generator().manual_seed(SEED), new_head=True)
    # Its vocabulary is <s>, <pad>, </s>, <unk>, then BERT's, then <mask>.
    last = model.config.vocab_size - 1
    ids = torch.arange(last - 4) + 4
    ids[[0, 100, 101, 102, 103]] = torch.tensor([1, 3, 0, 2, last])  # [PAD] [UNK] [CLS] [SEP] [MASK]
    return Network(model, ids.to(DEVICE))


# Teachers and students.


def train_teacher(data: TaskData, tokenizer: Tokenizer, base: Path, out: Path, schedule: Schedule) -> dict[str, float]:
    """Fine-tune MPNet on labels; write its logits for all training windows, end to end."""
    network = load_mpnet(base, data.task.head, data.task.outputs)
    figures = fit(network, data, None, tokenizer, schedule)
    found: list[np.ndarray] = [np.empty(0)] * len(data.windows)
    for group in budgeted([len(window.ids) for window in data.windows], network.max_tokens):
        batch = make_batch([data.windows[place] for place in group])
        rows = np.split(network.run(batch), np.cumsum(batch.counts)[:-1])
        for member, own in zip(batch.members, rows, strict=True):
            found[group[member]] = own
    np.save(out / LOGITS, np.concatenate(found).astype(np.float16))
    return figures


def train_student(
    data: TaskData, tokenizer: Tokenizer, base: Path, teacher: Path | None, out: Path, schedule: Schedule
) -> dict[str, float]:
    """Fine-tune the base on labels and, with a teacher, on its probabilities; write a model directory."""
    soft = None
    if teacher is not None:
        ends = np.cumsum([len(window.head_positions) for window in data.windows])
        logits = np.load(teacher / LOGITS).astype(np.float32)
        if len(logits) != ends[-1]:
            raise SystemExit(f"{teacher}: {len(logits)} logits, expected {ends[-1]}; they are of other data")
        soft = np.split(logits, ends[:-1])
    generator = torch.Generator().manual_seed(SEED)
    model, _ = load_model(base, data.task.head, data.task.outputs, generator, new_head=True)
    figures = fit(Network(model), data, soft, tokenizer, schedule)
    save_weights(model, out)
    ModelDirectory(out, model.config, data.task, tokenizer, {"dev": figures}).write()
    return figures


def fit(
    network: Network, data: TaskData, soft: list[np.ndarray] | None, tokenizer: Tokenizer, schedule: Schedule
) -> dict[str, float]:
    """Train a network in place; it ends with the weights that are best on dev. Gives their dev metrics.

    `soft` are the teacher's logits of each window.
    """
    network.model.encoder.embeddings.word.requires_grad_(False)
    parameters = [part for part in network.model.parameters() if part.requires_grad]
    averaged = [part.detach().clone() for part in parameters]
    optimizer = adamw(parameters, (0.9, 0.999))
    rng = np.random.default_rng(SEED)
    lengths = np.array([padded(len(window.ids)) for window in data.windows])
    best, kept = {"mean": -1.0}, averaged

    def epoch() -> list[np.ndarray]:
        return batches(lengths, np.arange(len(data.windows)), schedule, rng)

    queue = epoch()
    total = math.ceil(len(queue) * schedule.epochs)
    evaluate_at = {math.ceil(share * total) for share in schedule.evaluate_at}
    for step in range(total):
        queue = queue or epoch()
        members = queue.pop()
        batch = make_batch([data.windows[member] for member in members])
        members = members[batch.members]
        references = [data.windows[member].target for member in members]
        targets = np.concatenate([np.atleast_1d(-1 if reference is None else reference) for reference in references])
        taught = None if soft is None else on_device(np.concatenate([soft[member] for member in members]))
        loss = loss_of(network(batch, DeviceDropout()), on_device(targets), taught)
        update(optimizer, loss, peak_lr=schedule.lr, share=step / total, warmup=0.06)
        with torch.no_grad():
            # Of the first steps, the average forgets sooner.
            torch._foreach_lerp_(averaged, parameters, 1 - min(schedule.ema, (step + 2) / (step + 11)))
            if step + 1 in evaluate_at:
                current = [part.clone() for part in parameters]
                for weights in (current, averaged) if schedule.ema else (current,):
                    torch._foreach_copy_(parameters, weights)
                    figures = evaluate(network, data, tokenizer)
                    where = {"step": step + 1, "of": total, "loss": loss.item(), "averaged": weights is averaged}
                    print(json.dumps(where | figures), flush=True)
                    if figures["mean"] > best["mean"]:
                        best, kept = figures, [part.clone() for part in weights]
                torch._foreach_copy_(parameters, current)
    with torch.no_grad():
        torch._foreach_copy_(parameters, kept)
    return best


def batches(lengths: np.ndarray, chosen: np.ndarray, schedule: Schedule, rng: np.random.Generator) -> list[np.ndarray]:
    """The chosen windows in batches of like lengths, in random order."""
    found = []
    order = rng.permutation(chosen)
    for start in range(0, len(order), POOL * schedule.rows):
        pool = order[start : start + POOL * schedule.rows]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        while len(pool):
            size = min(schedule.rows, max(1, schedule.tokens // lengths[pool[0]]))
            found.append(pool[:size])
            pool = pool[size:]
    rng.shuffle(found)
    return found


def loss_of(logits: Tensor, targets: Tensor, soft: Tensor | None) -> Tensor:
    """Cross-entropy with the targets (-1: none), mixed with the divergence from the teacher's logits if they are given.

    (K, L) logits: each row is a choice among L classes.
    """
    hard = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    if soft is None:
        return hard.mean()
    own, teacher = (F.log_softmax(values / TEMPERATURE, -1) for values in (logits, soft))
    divergence = F.kl_div(own, teacher, log_target=True, reduction="none").sum(-1)
    return ((1 - TEACHER_SHARE) * hard + TEACHER_SHARE * TEMPERATURE**2 * divergence).mean()


def evaluate(network: Network, data: TaskData, tokenizer: Tokenizer) -> dict[str, float]:
    """The metric of the task on each dev set, and the mean of those that decide."""
    predictor, figures = Predictor(data.task, tokenizer, network), dict[str, float]()
    for name, examples in data.dev.items():
        references = [example.reference for example in examples if example.reference is not None]
        found, rng = predictor.predict_examples(examples), np.random.default_rng(SEED)
        scores = data.task.score(found, references, rng=rng, resamples=10)
        figures[name] = scores.metrics[data.task.headline].value
    return figures | {"mean": float(np.mean([figures[name] for name in data.chosen_on]))}


def adamw(parameters: list[nn.Parameter], betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW with a weight decay of 0.01 on matrices, none on biases and norms."""
    decayed = {0.01: [one for one in parameters if one.ndim > 1], 0.0: [one for one in parameters if one.ndim == 1]}
    groups = [{"params": some, "weight_decay": decay} for decay, some in decayed.items()]
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def update(optimizer: torch.optim.AdamW, loss: Tensor, *, peak_lr: float, share: float, warmup: float) -> None:
    """One step after a share of the run, gradients clipped to a norm of 1; linear warm-up and decay."""
    loss.backward()
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = peak_lr * (share / warmup if share < warmup else (1 - share) / (1 - warmup))
    optimizer.step()
    optimizer.zero_grad()


# Pretraining: pairs of segments are gathered and masked on the device.
# B pairs, T = LENGTH, M = MAX_MASKED, K masked tokens in all.


class PairSource:
    """Pairs of segments of a part of a corpus, read as often as `wanted` pairs need, paired anew each time."""

    def __init__(self, corpus: Corpus, part: str, wanted: int, tokenizer: Tokenizer) -> None:
        shards = [number for number, shard in enumerate(corpus.shards) if shard[part]["tokens"]]
        ids = [corpus.text(shard, part).ids for shard in shards]
        begin = np.zeros(len(corpus.shards), np.int64)
        begin[shards] = np.cumsum([0, *map(len, ids[:-1])])
        found: list[np.ndarray] = []
        while sum(map(len, found)) < wanted:
            rows = plan(corpus, part, shards, room=LENGTH - 3, pairs=True, seed=(SEED, len(found))).rows
            if not len(rows):
                raise SystemExit(f"too little text in the corpus for a pair of the part {part}")
            first, second = begin[rows[:, 0]], begin[rows[:, 3]]
            columns = (rows[:, 1] + first, rows[:, 2] + first, rows[:, 4] + second, rows[:, 5] + second, rows[:, 6])
            found.append(np.stack(columns, axis=1))
        self.tokenizer, self.ids = tokenizer, on_device(np.concatenate(ids).astype(np.int32))
        self.rows = on_device(np.concatenate(found))  # (S, 5) both segments' start and end, 0 if the second follows

    def batch(self, chosen: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, T) ids, (B, T) segment ids, (B, T) whether it is a token of the corpus, (B,) labels of some pairs."""
        start, end, start2, end2, labels = self.rows[chosen].unbind(1)
        first, second = (end - start)[:, None], (end2 - start2)[:, None]  # (B, 1) lengths
        place = torch.arange(LENGTH, device=DEVICE)
        in_first, in_second = (place >= 1) & (place <= first), (place >= first + 2) & (place < first + 2 + second)
        at = torch.where(in_first, start[:, None] + place - 1, start2[:, None] + place - first - 2)
        ids = self.ids[at.clamp(0, len(self.ids) - 1)].long().where(in_first | in_second, self.tokenizer.pad_id)
        last = place == first + second + 2
        ids[(place == first + 1) | last] = self.tokenizer.sep_id
        ids[:, 0] = self.tokenizer.cls_id
        return ids, (in_second | last).long(), in_first | in_second, labels


def read_pairs(
    model: PretrainModel, source: PairSource, chosen: slice, masking: Masking, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """The loss of some pairs: the mean of masked tokens plus the mean of pairs; and counts to sum."""
    ids, type_ids, ordinary, labels = source.batch(chosen)
    B, T = ids.shape
    rows = torch.arange(B, device=DEVICE)[:, None] * T
    order = torch.rand(ids.shape, device=DEVICE, generator=generator).masked_fill(~ordinary, -1.0)
    counts = (masking.rate * ordinary.sum(1, keepdim=True)).round().clamp(min=1)
    some = torch.arange(MAX_MASKED, device=DEVICE) < counts  # (B, M)
    places = (rows + order.topk(MAX_MASKED, dim=1).indices)[some]  # (K,) among B·T
    original = ids.view(-1)[places]
    draw = torch.rand(places.shape, device=DEVICE, generator=generator)
    replacements = on_device(masking.ordinary)
    replacement = replacements[torch.randint(len(replacements), places.shape, device=DEVICE, generator=generator)]
    shown = torch.where(draw < MASK_SHARE + RANDOM_SHARE, replacement, original).masked_fill(
        draw < MASK_SHARE, masking.mask_id
    )
    ids.view(-1)[places] = shown
    reads = torch.cat([rows[:, 0], places])
    firsts = torch.arange(len(reads), device=DEVICE) < B
    layout = Fused(B, model.config.num_attention_heads, padding_bias(ordinary.sum(1) + 3, T).to(PRODUCTS))
    positions = torch.arange(T, device=DEVICE).repeat(B)
    with autocast():
        guess, follows = model(ids.flatten(), type_ids.flatten(), positions, layout, reads, firsts)
    loss, right = model.masked_losses(guess.float(), original, PRODUCTS)
    followed = int((follows.argmax(1) == labels).sum())
    sums = {"loss": loss.item(), "right": int(right), "masked": len(places), "followed": followed, "pairs": B}
    return loss / len(places) + F.cross_entropy(follows.float(), labels), sums


def train_base(data: Path, base: Path, out: Path, tokenizer: Tokenizer, *, tiny: bool) -> dict[str, float]:
    """Pretrain a model further on masked tokens and next sentences; write a model directory."""
    files, steps, size = [data / f"corpus/{name}.txt.xz" for name in CORPUS], STEPS, PAIRS
    if tiny:
        with lzma.open(files[0], "rt", encoding="utf-8") as lines:
            (out / "corpus.txt").write_text(lines.read(300_000), encoding="utf-8")
        files, steps, size = [out / "corpus.txt"], 3, 8
    corpus = open_corpus(files, tokenizer, out / "shards")
    source, held_out = (
        PairSource(corpus, part, some, tokenizer) for part, some in (("train", steps * size), ("dev", 1))
    )
    model, _ = load_for_pretraining(base, torch.Generator().manual_seed(SEED), pairs=True)
    model.to(DEVICE)
    with torch.no_grad():  # a token begins with the probability of its share of the corpus
        counts = torch.bincount(source.ids, minlength=model.config.vocab_size) + 1
        model.head.bias.copy_(torch.log(counts / counts.sum()))
    masking, optimizer = Masking.of(tokenizer), adamw(list(model.parameters()), (0.9, 0.98))
    generator = torch.Generator(DEVICE).manual_seed(SEED)
    for step in range(steps):
        loss, _ = read_pairs(model, source, slice(step * size, (step + 1) * size), masking, generator)
        update(optimizer, loss, peak_lr=PRETRAIN_LR, share=step / steps, warmup=0.05)
        if step % 100 == 0:
            print(json.dumps({"step": step, "of": steps, "loss": loss.item()}), flush=True)
    total: Counter[str] = Counter()
    with torch.inference_mode():
        for begin in range(0, min(DEV_PAIRS, len(held_out.rows)), 256):
            total.update(read_pairs(model, held_out, slice(begin, begin + 256), masking, generator)[1])
    save_weights(model, out)
    tokenizer.save(out)
    config = model.config.to_json() | {"architectures": ["BertForPreTraining"]}
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    return {
        "perplexity": math.exp(min(total["loss"] / total["masked"], 30.0)),
        "masked_token_accuracy": total["right"] / total["masked"],
        "next_sentence_accuracy": total["followed"] / total["pairs"],
    }


def save_weights(model: TaskModel | PretrainModel, out: Path) -> None:
    """Write the weights in fp16 under the names of `transformers`."""
    tensors = {name: part.half().cpu() for name, part in model_tensors(model).items()}
    write_safetensors(out / WEIGHTS, tensors, {"format": "pt"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("base", "teacher", "student"))
    parser.add_argument("data", type=Path, help="folder of data sets")
    parser.add_argument("out", type=Path, help="directory to write; it must not exist")
    parser.add_argument("--task", choices=TASK_DATA, help="of a teacher or student")
    parser.add_argument("--base", default="minilm-l6", help="model to begin with: a directory, or a name of bothways")
    parser.add_argument("--teacher", type=Path, help="of a student: the directory of its teacher")
    parser.add_argument("--tiny", action="store_true", help="read a few examples, to try it")
    given = parser.parse_args(arguments)
    if (given.job == "base") != (given.task is None):
        parser.error("a teacher or student needs --task, a base has none")

    torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for every shape
    torch.manual_seed(SEED)  # of dropout
    given.out.mkdir(parents=True)
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    if given.job == "base":
        figures = train_base(given.data, find_model(given.base), given.out, tokenizer, tiny=given.tiny)
    else:
        data = TASK_DATA[given.task](given.data, tokenizer, TINY if given.tiny else None)
        schedule = (TEACHERS if given.job == "teacher" else STUDENTS)[given.task]
        schedule = replace(schedule, tokens=TINY_TOKENS) if given.tiny else schedule
        if given.job == "teacher":
            figures = train_teacher(data, tokenizer, Path(given.base), given.out, schedule)
        else:
            figures = train_student(data, tokenizer, find_model(given.base), given.teacher, given.out, schedule)
    write_text(given.out / "figures.json", json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
