"""The GPU stage of the question answering and zero-shot models: a teacher, texts that it labels, and a student.

    python recipes/question_answering_data.py DATA work/answers.json work/answers-dev.json
    python recipes/zero_shot_data.py DATA work/pairs.jsonl
    python recipes/gpu/distill.py prepare DATA work/arrays --answers work/answers.json --pairs work/pairs.jsonl
    python recipes/gpu/distill.py answer work/arrays work/mpnet work/base work/answer
    python recipes/gpu/distill.py pairs work/arrays work/mpnet work/base work/pairs

`prepare` tokenizes on the CPU. The two other jobs run at the same time on one GPU; each ends with a model directory in
fp16 with the word embeddings of the base. Each job

1. fine-tunes all-mpnet-base-v2 on the labeled rows;
2. makes more rows: words of the labeled ones are replaced by what the masked-token head of the base proposes (as in
   TinyBERT, Jiao et al. 2020), and texts are paired anew;
3. computes the teacher's logits of all rows;
4. trains the base on labels and on the teacher's probabilities (Hinton et al. 2015).

The training stages stop after a number of seconds, and the learning rate follows the share of the time that has passed,
so a second run is near the first and not identical. The included models come from one run of both jobs on one H100 with
torch 2.11. It read all-mpnet-base-v2 and the word embeddings of the base in int8, for the upload, and made

| job | rows: labeled, paired anew, with replaced words | teacher: steps, rows read | student: steps, rows read |
|---|---|---|---|
| answer | 176,852, none, 78,313 | 3,353, 151,317 | 10,848, 990,895 |
| pairs | 186,506, 300,000, 781,310 | 2,529, 503,942 | 14,464, 5,713,812 |
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from train import (
    DEVICE,
    PRODUCTS,
    DeviceDropout,
    Fused,
    Network,
    adamw,
    autocast,
    load_mpnet,
    padded,
    save_weights,
    update,
)

from bothways.inference.model_directory import ModelDirectory
from bothways.model.checkpoint import load_for_pretraining, load_model
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.layout import padding_bias
from bothways.storage import write_text
from bothways.tasks import Answer, Pairs, Trainable
from bothways.text.tokenizer import Tokenizer

CLS, SEP, MASK = 101, 102, 103
FIRST_WORD = 1996  # ids of bert-base-uncased from here on are whole words or their continuations
LABELS = ("contradiction", "entailment", "neutral")
LONGEST = {"pairs": 128, "answer": 384}
STRIDE = 128  # tokens that neighboring windows of a passage share
SEED, TEMPERATURE, TEACHER_SHARE, EMA = 1, 2.0, 0.7, 0.999
POOL = 64  # batches that are made of the same random rows, sorted by length
PROPOSALS = 16  # of the masked-token head for a word
NLI, ZERO_SHOT, MADE = 0, 1, 2  # kinds of rows of pairs
LABELLED, REPLACED = 0, 1  # kinds of rows of questions


# Tokenizing, on the CPU: texts once each, end to end, and rows that refer to them.


class Texts:
    """Token ids of different texts, each stored once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """The number of a text."""
        return self.places.setdefault(text, len(self.places))

    def encodings(self, tokenizer: Tokenizer) -> list[Any]:
        """The encodings of all texts, in order, without special tokens."""
        return tokenizer.backend.encode_batch(list(self.places), add_special_tokens=False)


def flat(encodings: list[Any]) -> dict[str, np.ndarray]:
    """Token ids end to end, and where each text ends."""
    ids = [np.array(one.ids, np.uint16) for one in encodings]
    return {"ids": np.concatenate(ids), "ends": np.cumsum([len(one) for one in ids]).astype(np.int32)}


def prepare_pairs(data: Path, rows: Path, out: Path, tokenizer: Tokenizer) -> None:
    """Write pairs.npz: texts, and rows of premise, hypothesis, class, kind; nli/dev beside it."""
    texts = Texts()
    with lzma.open(data / "nli/train.jsonl.xz", "rt", encoding="utf-8") as lines:
        nli = {(row["premise"], row["hypothesis"]) for row in map(json.loads, lines)}
    found = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pair = (row["premise"], row["hypothesis"])
        kind = NLI if pair in nli else ZERO_SHOT
        found.append((*map(texts.place, pair), LABELS.index(row["label"]), kind))
    dev = []
    for line in (data / "nli/dev.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        dev.append((texts.place(row["premise"]), texts.place(row["hypothesis"]), LABELS.index(row["label"]), NLI))
    arrays = flat(texts.encodings(tokenizer))
    np.savez(out / "pairs.npz", **arrays, rows=np.array(found, np.int32), dev=np.array(dev, np.int32))


def prepare_answers(data: Path, rows: Path, out: Path, tokenizer: Tokenizer) -> None:
    """Write answer.npz: texts, and windows: question, passage, its first and last token, start and end of the answer.

    Start and end are 0 without an answer, and -1 where the place of the answer is not certain. Windows of dev come
    without places; references.json holds the answers.
    """
    texts = Texts()
    with lzma.open(data / "squad/train-v1.1.json.xz", "rt", encoding="utf-8") as file:
        uncertain = [
            (one["question"], part["context"], one["answers"][0]["text"], -1)
            for article in json.load(file)["data"]
            for part in article["paragraphs"]
            for one in part["qas"]
            if not one.get("start_certain", True)
        ]
    asked = uncertain + list(questions(json.loads(rows.read_text(encoding="utf-8"))))
    dev, references = [], []
    for name in ("dev-v1.1", "dev-v2.0"):
        source = json.loads((data / f"squad/{name}.json").read_text(encoding="utf-8"))
        for article in source["data"]:
            for part in article["paragraphs"]:
                for one in part["qas"]:
                    dev.append((one["question"], part["context"], "", -1))
                    answers = [answer["text"] for answer in one["answers"]]
                    found_ids = tokenizer.backend.encode_batch(answers, add_special_tokens=False)
                    references.append([name, [encoding.ids for encoding in found_ids]])
    for question, context, _, _ in asked + dev:
        texts.place(question), texts.place(context)
    encodings = texts.encodings(tokenizer)
    found = {
        name: np.array([w for n, row in enumerate(some) for w in windows(n, row, texts, encodings)], np.int32)
        for name, some in (("rows", asked), ("dev", dev))
    }
    write_text(out / "references.json", json.dumps(references))
    np.savez(out / "answer.npz", **flat(encodings), **found)


def questions(source: dict[str, Any]) -> Iterator[tuple[str, str, str, int]]:
    """Question, context, answer and its first character, -2 without an answer."""
    for article in source["data"]:
        for part in article["paragraphs"]:
            for one in part["qas"]:
                for answer in one["answers"][:1] or [{"text": "", "answer_start": -2}]:
                    yield one["question"], part["context"], answer["text"], answer["answer_start"]


def windows(
    number: int, row: tuple[str, str, str, int], texts: Texts, encodings: list[Any]
) -> Iterator[tuple[int, ...]]:
    """Number of the row, question, context, tokens from and to, start and end in the window (-1: not known)."""
    question, context, answer, begin = row
    q, c = texts.place(question), texts.place(context)
    offsets, asked = encodings[c].offsets, min(len(encodings[q].ids), 64)
    room = LONGEST["answer"] - 3 - asked
    start = end = -1
    if begin >= 0:
        start = next((n for n, (_, stop) in enumerate(offsets) if stop > begin), -1)
        end = next((n for n, (_, stop) in enumerate(offsets) if stop >= begin + len(answer)), -1)
    for first in range(0, max(1, len(offsets) - STRIDE if len(offsets) > room else 1), room - STRIDE):
        last = min(first + room, len(offsets))
        if begin == -1:
            yield number, q, c, first, last, -1, -1
        elif begin >= 0 and first <= start <= end < last:
            yield number, q, c, first, last, asked + 2 + start - first, asked + 2 + end - first
        else:
            yield number, q, c, first, last, 0, 0


# Rows on the device. N rows, L their longest length, B rows of a batch, T their longest length.


@dataclass(slots=True)
class Rows:
    """Pairs of texts as token ids, with labels and the teacher's logits."""

    ids: Tensor  # (N, L) int16, 0 after the end
    lengths: Tensor  # (N,)
    second: Tensor  # (N,) place of the first token of the second text
    targets: Tensor  # (N,) class, or (N, 2) start and end; -1: not known
    kinds: np.ndarray  # (N,)
    sizes: np.ndarray  # (N,) the lengths, on the CPU
    soft: Tensor | None = None  # (N, 3) or (N, 2, L)

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Rows) -> Rows:
        parts = [torch.cat(pair) for pair in zip(self.tensors(), other.tensors(), strict=True)]
        return Rows(*parts, *(np.concatenate(pair) for pair in ((self.kinds, other.kinds), (self.sizes, other.sizes))))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, lengths, places of the second text, targets."""
        return self.ids, self.lengths, self.second, self.targets

    def take(self, chosen: np.ndarray) -> Rows:
        """Some of the rows."""
        places = torch.from_numpy(chosen).to(DEVICE)
        soft = None if self.soft is None else self.soft[places]
        return Rows(*(part[places] for part in self.tensors()), self.kinds[chosen], self.sizes[chosen], soft)

    def width(self) -> int:
        """The longest length, as a multiple of 8."""
        return min(padded(int(self.sizes.max())), self.ids.shape[1])


def lay(pairs: list[tuple[np.ndarray, np.ndarray]], targets: np.ndarray, kinds: np.ndarray, longest: int) -> Rows:
    """[CLS] first [SEP] second [SEP] of each pair; what is too long loses the end of its longer text."""
    ids = np.zeros((len(pairs), longest), np.int16)
    lengths, second = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    for row, (one, other) in enumerate(pairs):
        room = longest - 3
        if len(one) + len(other) > room:
            one = one[: max(room - len(other), room // 2)]
            other = other[: room - len(one)]
        a, b = len(one) + 2, len(one) + 3 + len(other)
        ids[row, :b] = np.concatenate([[CLS], one, [SEP], other, [SEP]])
        lengths[row], second[row] = b, a
    tensors = [torch.from_numpy(part).to(DEVICE) for part in (ids, lengths, second, targets.astype(np.int64))]
    return Rows(*tensors, kinds, lengths)


def load_pairs(arrays: Path, rng: np.random.Generator, *, made: int) -> tuple[Rows, Rows]:
    """Rows to train on, labeled and paired anew, and those of nli/dev."""
    saved = np.load(arrays / "pairs.npz")
    texts = np.split(saved["ids"].astype(np.int16), saved["ends"][:-1])
    rows, dev = saved["rows"], saved["dev"]
    nli = rows[rows[:, 3] == NLI]
    about = rows[rows[:, 3] == ZERO_SHOT]
    groups: dict[int, list[int]] = {}
    for premise, hypothesis in nli[:, :2].tolist():
        groups.setdefault(premise, []).append(hypothesis)
    several = [group for group in groups.values() if len(group) > 1]

    def any_of(some: np.ndarray, column: int) -> int:
        return int(some[rng.integers(len(some)), column])

    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(made):
        one = nli[rng.integers(len(nli))]
        pairs.append((texts[one[1]], texts[one[0]]))  # exchanged
        group = several[rng.integers(len(several))]
        pairs.append((texts[group[rng.integers(len(group))]], texts[group[rng.integers(len(group))]]))
        pairs.append((texts[any_of(about, 0)], texts[any_of(about, 1)]))
        pairs.append((texts[any_of(nli, 0)], texts[any_of(about, 1)]))
        for some in (nli, about):  # a text, and the same with some words left out
            text = texts[any_of(some, 0)]
            pairs.append((text, shortened(text, rng)))
    able = [pair for pair in pairs if len(pair[0]) and len(pair[1])]
    unknown, kind = np.full(len(able), -1), np.full(len(able), MADE)
    labeled = lay([(texts[a], texts[b]) for a, b in rows[:, :2]], rows[:, 2], rows[:, 3], LONGEST["pairs"])
    held = lay([(texts[a], texts[b]) for a, b in dev[:, :2]], dev[:, 2], dev[:, 3], LONGEST["pairs"])
    return labeled + lay(able, unknown, kind, LONGEST["pairs"]), held


def shortened(text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A text from some token on, or up to some token, or without a part in the middle."""
    size = len(text)
    if size < 6:
        return text
    first, last = np.sort(rng.integers(0, size + 1, 2))
    parts = (text[first:], text[:last], np.concatenate([text[:first], text[last:]]))
    part = parts[rng.integers(3)]
    return part if len(part) >= 3 else text


def load_answers(arrays: Path) -> tuple[Rows, Rows, np.ndarray]:
    """Windows to train on, windows of dev, and the questions that these belong to."""
    saved = np.load(arrays / "answer.npz")
    texts = np.split(saved["ids"].astype(np.int16), saved["ends"][:-1])
    found = [
        lay(
            [(texts[q][:64], texts[c][first:last]) for _, q, c, first, last, _, _ in rows.tolist()],
            rows[:, 5:7],
            np.full(len(rows), LABELLED),
            LONGEST["answer"],
        )
        for rows in (saved["rows"], saved["dev"])
    ]
    return found[0], found[1], saved["dev"][:, 0]


def logits_of(network: Network, rows: Rows, dropout: Dropout = NO_DROPOUT) -> Tensor:
    """Rows -> (B, 3) logits of classes, or (B, 2, T) of starts and ends, those of other tokens -10,000; fp32."""
    T = rows.width()
    B, place = len(rows), torch.arange(T, device=DEVICE)
    inside = place < rows.lengths[:, None]
    types = ((place >= rows.second[:, None]) & inside).long()
    tokens = rows.ids[:, :T].long()
    tokens = tokens if network.ids is None else network.ids[tokens]
    layout = Fused(B, network.model.config.num_attention_heads, padding_bias(rows.lengths, T).to(PRODUCTS))
    spans = rows.targets.ndim == 2
    head_positions = torch.arange(B * T, device=DEVICE) if spans else torch.arange(B, device=DEVICE) * T
    with autocast():
        out = network.model(tokens.flatten(), types.flatten(), place.repeat(B), layout, head_positions, dropout).float()
    if not spans:
        return out
    able = (place == 0) | (types.bool() & (place < rows.lengths[:, None] - 1))
    return out.view(B, T, 2).transpose(1, 2).masked_fill(~able[:, None], -1e4)


def batches(lengths: np.ndarray, chosen: np.ndarray, tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows in batches of like lengths and at most so many tokens, in random order."""
    order = chosen[np.argsort(-lengths[chosen], kind="stable")]
    found = []
    while len(order):
        size = max(1, tokens // padded(int(lengths[order[0]])))
        found.append(order[:size])
        order = order[size:]
    rng.shuffle(found)
    return found


def loss_of(logits: Tensor, rows: Rows) -> Tensor:
    """Cross-entropy with the labels that are known, mixed with the divergence from the teacher's probabilities."""
    soft = rows.soft
    if logits.ndim == 3:
        logits, targets = logits.flatten(0, 1), rows.targets.flatten()
        soft = None if soft is None else soft[:, :, : logits.shape[-1]].flatten(0, 1)
    else:
        targets = rows.targets
    known = targets >= 0
    hard = F.cross_entropy(logits, targets.clamp(min=0), reduction="none") * known
    if soft is None:
        return hard.sum() / known.sum().clamp(min=1)
    own, teacher = (F.log_softmax(values.float() / TEMPERATURE, -1) for values in (logits, soft))
    divergence = F.kl_div(own, teacher, log_target=True, reduction="none").sum(-1) * TEMPERATURE**2
    return torch.where(known, (1 - TEACHER_SHARE) * hard + TEACHER_SHARE * divergence, divergence).mean()


def train(
    network: Network, rows: Rows, weights: np.ndarray, *, seconds: float, lr: float, tokens: int, ema: float
) -> list[Tensor]:
    """Train for some seconds, rows drawn with `weights`; gives averaged weights, and leaves the last ones in place."""
    network.model.encoder.embeddings.word.requires_grad_(False)
    parameters = [part for part in network.model.parameters() if part.requires_grad]
    averaged = [part.detach().clone() for part in parameters]
    optimizer, rng = adamw(parameters, (0.9, 0.999)), np.random.default_rng(SEED)
    lengths = rows.sizes
    order = {kind: np.flatnonzero(rows.kinds == kind) for kind in range(len(weights))}
    queues = {kind: np.empty(0, np.int64) for kind in order}
    queue: list[np.ndarray] = []
    begin, step, seen = time.time(), 0, 0
    while (share := (time.time() - begin) / seconds) < 1:
        if not queue:  # rows of each kind without repetition until all were seen
            wanted = (weights / weights.sum() * POOL * tokens / lengths.mean()).astype(int)
            chosen = []
            for kind, count in enumerate(wanted):
                while len(queues[kind]) < count:
                    queues[kind] = np.concatenate([queues[kind], rng.permutation(order[kind])])
                chosen.append(queues[kind][:count])
                queues[kind] = queues[kind][count:]
            queue = batches(lengths, np.concatenate(chosen), tokens, rng)
        batch = rows.take(queue.pop())
        loss = loss_of(logits_of(network, batch, DeviceDropout()), batch)
        update(optimizer, loss, peak_lr=lr, share=min(share, 0.999), warmup=0.06)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - min(ema, (step + 2) / (step + 11)))
        step, seen = step + 1, seen + len(batch)
        if step % 200 == 1:
            print(json.dumps({"step": step, "share": round(share, 3), "rows": seen, "loss": loss.item()}), flush=True)
    print(json.dumps({"steps": step, "rows": seen}), flush=True)
    return averaged


@torch.no_grad()
def all_logits(network: Network, rows: Rows, tokens: int = 1 << 16) -> Tensor:
    """Logits of all rows in fp16, (N, 3) or (N, 2, L)."""
    spans = rows.targets.ndim == 2
    shape = (len(rows), 2, rows.ids.shape[1]) if spans else (len(rows), 3)
    found = torch.full(shape, -1e4, dtype=torch.float16, device=DEVICE)
    for chosen in batches(rows.sizes, np.arange(len(rows)), tokens, np.random.default_rng(SEED)):
        logits = logits_of(network, rows.take(chosen)).half()
        if spans:
            found[chosen, :, : logits.shape[-1]] = logits
        else:
            found[chosen] = logits
    return found


@torch.no_grad()
def replaced(base: Path, rows: Rows, chosen: np.ndarray, rates: tuple[float, float], kind: int) -> Rows:
    """Rows with some words of both texts replaced by proposals of the masked-token head, their labels unknown.

    `rates`: the highest share of tokens that are replaced in the first and in the second text; each row draws its own.
    A row without a drawn token has one replaced, in either text.
    """
    model, _ = load_for_pretraining(base, torch.Generator().manual_seed(SEED), pairs=True)
    model.to(DEVICE).encoder.requires_grad_(False)
    generator = torch.Generator(DEVICE).manual_seed(SEED)
    made = []
    for members in batches(rows.sizes, chosen, 1 << 15, np.random.default_rng(SEED)):
        part = rows.take(members)
        T = part.width()
        B, place = len(part), torch.arange(T, device=DEVICE)
        ids = part.ids[:, :T].long()
        second = place >= part.second[:, None]
        highest = torch.rand((B, 2), generator=generator, device=DEVICE) * torch.tensor(rates, device=DEVICE)
        rate = torch.where(second, highest[:, 1:], highest[:, :1])
        drawn = torch.rand(ids.shape, generator=generator, device=DEVICE).masked_fill(ids < FIRST_WORD, 2.0)
        hidden = drawn < rate
        hidden |= (drawn == drawn.amin(1, keepdim=True)) & ~hidden.any(1, keepdim=True) & (ids >= FIRST_WORD)
        masked = ids.masked_fill(hidden, MASK)
        places = torch.cat([torch.arange(B, device=DEVICE) * T, hidden.flatten().nonzero()[:, 0]])
        firsts = torch.arange(len(places), device=DEVICE) < B
        inside = place < part.lengths[:, None]
        layout = Fused(B, model.config.num_attention_heads, padding_bias(part.lengths, T).to(PRODUCTS))
        with autocast():
            types = (second & inside).long().flatten()
            guess, _ = model(masked.flatten(), types, place.repeat(B), layout, places, firsts)
            table = model.encoder.embeddings.word.weight
            for some in torch.arange(len(guess), device=DEVICE).split(1 << 14):
                logits = F.linear(guess[some], table).float() + model.head.bias
                logits[:, :FIRST_WORD] = -1e4
                at = places[B + some]
                logits.scatter_(1, ids.view(-1)[at][:, None], -1e4)  # another word than before
                best = logits.topk(PROPOSALS, dim=1)
                pick = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
                masked.view(-1)[at] = best.indices.gather(1, pick)[:, 0]
        full = torch.zeros((B, rows.ids.shape[1]), dtype=torch.int16, device=DEVICE)
        full[:, :T] = masked.to(torch.int16)
        unknown = torch.full_like(part.targets, -1)
        made.append(Rows(full, part.lengths, part.second, unknown, np.full(B, kind), part.sizes))
    parts = [torch.cat(some) for some in zip(*(one.tensors() for one in made), strict=True)]
    return Rows(*parts, np.full(len(parts[0]), kind), np.concatenate([one.sizes for one in made]))


# Figures on dev: accuracy; for questions, F1 of token ids (not the official F1 of words) and refusals.


def pair_figures(network: Network, dev: Rows) -> dict[str, float]:
    """Accuracy on nli/dev."""
    found = all_logits(network, dev).float().argmax(1)
    return {"mean": float((found == dev.targets).float().mean())}


def answer_figures(network: Network, dev: Rows, owner: np.ndarray, references: list[Any]) -> dict[str, float]:
    """F1 of answered questions, and the share of unanswerable ones that is refused at a loss of 0.01 of F1 on 1.1."""
    logits = all_logits(network, dev).float()
    count = len(references)
    best, null = np.full(count, -np.inf), np.full(count, np.inf)
    answers: list[list[int]] = [[] for _ in range(count)]
    ids = dev.ids.cpu().numpy()
    L = ids.shape[1]
    able = torch.ones((L, L), dtype=torch.bool, device=DEVICE).triu() & ~torch.ones(
        (L, L), dtype=torch.bool, device=DEVICE
    ).triu(30)
    able[0] = False
    for chosen in torch.arange(len(dev), device=DEVICE).split(256):
        score = (logits[chosen, 0][:, :, None] + logits[chosen, 1][:, None, :]).masked_fill(~able, -1e5)
        top, where = score.flatten(1).max(1)
        nothing = logits[chosen, :, 0].sum(1)
        for row, value, at, empty in zip(chosen.tolist(), top.tolist(), where.tolist(), nothing.tolist(), strict=True):
            number = owner[row]
            null[number] = min(null[number], empty)
            if value > best[number]:
                best[number], answers[number] = value, ids[row, at // L : at % L + 1].tolist()
    f1 = np.array(
        [
            max((overlap(own, one) for one in some), default=0.0)
            for own, (_, some) in zip(answers, references, strict=True)
        ]
    )
    first = np.array([name == "dev-v1.1" for name, _ in references])
    without = np.array([not some for _, some in references])
    gap = null - best
    figures = {"f1": float(f1[first].mean())}
    for loss in (0.005, 0.01, 0.02):
        thresholds = np.quantile(gap[first], np.linspace(0.7, 1, 301))
        lost = [float((f1 * (gap > threshold))[first].mean()) for threshold in thresholds]
        lowest = min(threshold for threshold, some in zip(thresholds, lost, strict=True) if some <= loss)
        figures[f"refused_at_{loss}"] = float((gap[without] > lowest).mean())
    return figures | {"mean": figures["f1"] + 0.2 * figures["refused_at_0.01"]}


def overlap(own: list[int], reference: list[int]) -> float:
    """F1 of two bags of tokens."""
    common = sum(min(own.count(one), reference.count(one)) for one in set(own))
    return 2 * common / (len(own) + len(reference)) if common else 0.0


def run(
    job: str,
    arrays: Path,
    mpnet: Path,
    base: Path,
    out: Path,
    *,
    teacher_seconds: float,
    seconds: float,
    variants: int,
    made: int,
    tokens: int,
) -> None:
    """Teacher, more rows, student."""
    teacher_tokens = tokens // 2  # of another size, so that both have batches that fill the device
    begin, rng = time.time(), np.random.default_rng(SEED)

    def note(**figures: Any) -> None:
        print(json.dumps({"seconds": round(time.time() - begin, 1)} | figures), flush=True)

    if job == "pairs":
        task: Trainable = Pairs(labels=LABELS, max_length=LONGEST["pairs"])
        rows, dev = load_pairs(arrays, rng, made=made)
        figures: Callable[[Network], dict[str, float]] = partial(pair_figures, dev=dev)
        teacher_weights, student_weights = np.array([0.65, 0.35]), np.array([0.2, 0.2, 0.15, 0.45])
    else:
        task = Answer(handle_impossible_answer=True)
        rows, dev, owner = load_answers(arrays)
        references = json.loads((arrays / "references.json").read_text(encoding="utf-8"))
        figures = partial(answer_figures, dev=dev, owner=owner, references=references)
        teacher_weights, student_weights = np.array([1.0]), np.array([0.7, 0.3])
    note(rows=len(rows), longest=int(rows.lengths.max()))
    teacher = load_mpnet(mpnet, task.head, task.outputs)
    # The mixture's rows without a label teach a teacher nothing: it draws the kinds that have labels.
    train(teacher, rows, teacher_weights, seconds=teacher_seconds, lr=4e-5, tokens=teacher_tokens, ema=0.99)
    note(teacher=figures(teacher))
    kind = len(student_weights) - 1
    if job == "pairs":
        chosen = np.tile(np.flatnonzero(rows.kinds == NLI), variants)
        rows = rows + replaced(base, rows, chosen, (0.15, 0.5), kind)
    else:
        chosen = rng.permutation(np.flatnonzero((rows.targets[:, 0] > 0).cpu().numpy()))[: variants * 30_000]
        rows = rows + replaced(base, rows, chosen, (0.3, 0.0), kind)
    note(rows=len(rows))
    rows.soft = all_logits(teacher, rows)
    note(labeled=len(rows))
    del teacher
    torch.cuda.empty_cache()
    model, _ = load_model(base, task.head, task.outputs, torch.Generator().manual_seed(SEED), new_head=True)
    student = Network(model)
    averaged = train(
        student,
        rows,
        student_weights,
        seconds=max(1.0, seconds - (time.time() - begin)),
        lr=3e-4,
        tokens=tokens,
        ema=EMA,
    )
    last = figures(student)
    parameters = [part for part in student.model.parameters() if part.requires_grad]
    before = [part.detach().clone() for part in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, averaged)
    mean = figures(student)
    note(last=last, averaged=mean)
    if last["mean"] > mean["mean"]:
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)
    out.mkdir(parents=True)
    save_weights(student.model, out)
    best = last if last["mean"] > mean["mean"] else mean
    ModelDirectory(out, student.model.config, task, Tokenizer.packaged("bert-base-uncased"), {"dev": best}).write()
    note(saved=out.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    preparing = jobs.add_parser("prepare")
    preparing.add_argument("data", type=Path, help="folder of data sets")
    preparing.add_argument("out", type=Path)
    preparing.add_argument("--answers", type=Path, required=True)
    preparing.add_argument("--pairs", type=Path, required=True)
    for name in ("answer", "pairs"):
        job = jobs.add_parser(name)
        for argument in ("arrays", "mpnet", "base", "out"):
            job.add_argument(argument, type=Path)
        answers = name == "answer"
        job.add_argument("--teacher-seconds", type=float, default=170 if answers else 120)
        job.add_argument(
            "--seconds",
            type=float,
            default=560 if answers else 565,
            help="of the whole job; the student has what is left",
        )
        job.add_argument("--variants", type=int, default=5 if answers else 10, help="of each row, with replaced words")
        job.add_argument("--made", type=int, default=50_000, help="pairs of each of six kinds that are paired anew")
        job.add_argument("--tokens", type=int, default=16_384, help="tokens of a batch, padding included")
    given = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    if given.job == "prepare":
        given.out.mkdir(parents=True, exist_ok=True)
        tokenizer = Tokenizer.packaged("bert-base-uncased")
        prepare_pairs(given.data, given.pairs, given.out, tokenizer)
        prepare_answers(given.data, given.answers, given.out, tokenizer)
        return
    if DEVICE.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for every shape
    run(
        given.job,
        given.arrays,
        given.mpnet,
        given.base,
        given.out,
        teacher_seconds=given.teacher_seconds,
        seconds=given.seconds,
        variants=given.variants,
        made=given.made,
        tokens=given.tokens,
    )


if __name__ == "__main__":
    main()
