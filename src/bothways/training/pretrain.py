"""Pretraining as work for the loop: hidden pieces to guess and, in pairs, whether the second segment follows.

All randomness follows from (seed, stage, epoch) and (seed, step, part of the update), so that a resumed run is the
uninterrupted run, and several devices make the updates of one that computes as many parts.
N tokens, K masked pieces, B sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import Batch, make_batch
from bothways.errors import DataError, OptionError
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.engine import Precision, packed_inputs, set_precision
from bothways.model.pretraining import PretrainModel
from bothways.terminal import Reporter
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.corpus import Corpus
from bothways.training.devices import ALONE, Devices
from bothways.training.finetune import set_dropout
from bothways.training.loop import Part, Plan, State, run
from bothways.training.masking import Masking
from bothways.training.optimizer import MasterAdamW, parameter_groups
from bothways.training.recipe import PretrainRecipe
from bothways.training.sequences import Sequences, groups, plan, windows

HELD_OUT_SEQUENCES = 512  # that are judged at each evaluation, always the same
JUDGED_AT_ONCE = 32


def pretrain_model(
    model: PretrainModel,
    corpus: Corpus,
    tokenizer: Tokenizer,
    recipe: PretrainRecipe,
    reporter: Reporter,
    *,
    directory: Path,
    identity: str,
    precision: Precision,
    lr: float,
    time_budget: float | None = None,
    resume: bool = False,
    devices: Devices = ALONE,
) -> State:
    """Train `model`, given in fp32, in place; it ends in fp32.

    Raises `InterruptedRunError` after Ctrl-C, with everything saved; `DataError` for a corpus of too little text.
    """
    parts = recipe.accumulate * devices.size
    if recipe.batch_size % parts:
        raise OptionError(
            f"batch_size is {recipe.batch_size}, which does not divide by accumulate times the processes, {parts}"
        )
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    model.to(devices.device)
    optimizer = MasterAdamW(model, parameter_groups(model, 1.0, recipe.weight_decay))
    set_precision(model.encoder, precision)  # after the masters took the weights as they are
    work = _Pretraining(model, corpus, tokenizer, recipe, precision, devices)
    settings = Plan(
        title="pretraining",
        directory=directory,
        identity=identity,
        total=recipe.steps,
        time_budget=time_budget,
        eval_every=recipe.eval_every,
        lr=lr,
        warmup=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        judge_first=True,
    )
    state, learned = run(optimizer, work, settings, reporter, resume=resume, devices=devices)
    model.float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(learned[name])
    return state


class _Pretraining:
    """The sequences of a corpus, stage by stage, each epoch cut, paired and masked anew."""

    def __init__(
        self,
        model: PretrainModel,
        corpus: Corpus,
        tokenizer: Tokenizer,
        recipe: PretrainRecipe,
        precision: Precision,
        devices: Devices,
    ) -> None:
        self.model, self.corpus, self.tokenizer, self.recipe, self.devices = model, corpus, tokenizer, recipe, devices
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.masking = Masking.of(tokenizer, rate=recipe.mask_rate, whole_words=recipe.whole_words)
        self.stages = recipe.stages()
        # Where in the corpus the next update begins; `turns` counts the groups of shards, `place` the sequences in one.
        self.state: dict[str, Any] = {"stage": 0, "turns": 0, "place": 0, "seen": 0}
        self._planned: tuple[tuple[int, int], Sequences] | None = None
        self._held_out: Sequences | None = None

    def epoch(self, step: int) -> float:
        """How often the corpus has been read, by its pieces."""
        return float(self.state["seen"]) / self.corpus.pieces

    def parts(self, step: int, share: float) -> Iterator[Part]:
        """The parts of one update that are this device's."""
        recipe, devices = self.recipe, self.devices
        number = next(
            place for place, (_, end) in enumerate(self.stages) if share < end or place == len(self.stages) - 1
        )
        if number != self.state["stage"]:
            self.state |= {"stage": number, "turns": 0, "place": 0}
        parts = recipe.accumulate * devices.size
        size = max(parts, recipe.batch_size * self.stages[0][0] // self.stages[number][0] // parts * parts)
        sequences, chosen = self._next(size)
        own = []
        for part in range(devices.rank, parts, devices.size):
            rng = np.random.Generator(np.random.SFC64((recipe.seed, step, part)))
            made = windows(sequences, chosen[part::parts], self.tokenizer, pairs=recipe.nsp)
            own.append((self._batch([self._masked(window, rng) for window in made]), Dropout(rng)))
        hidden = devices.total({"hidden": float(sum(len(targets) for (_, targets, _), _ in own))})["hidden"]
        for (batch, targets, labels), dropout in own:
            losses, figures = self._losses(batch, targets, labels, dropout)
            loss = losses[0] / max(hidden, 1.0)
            if recipe.nsp:
                loss = loss + losses[1] / len(chosen)
            yield loss, figures | {"loss": float(loss.detach()), "tokens": float(len(batch.ids))}

    def figures(self, sums: dict[str, float], steps: int) -> dict[str, float]:
        """Losses, accuracies and perplexity, means over pieces and pairs."""
        masked = max(sums["masked"], 1.0)
        found = {
            "loss": sums["loss"] / steps,
            "mlm_loss": sums["mlm_loss"] / masked,
            "mlm_accuracy": sums["mlm_right"] / masked,
        }
        if self.recipe.nsp:
            found |= {"nsp_loss": sums["nsp_loss"] / sums["pairs"], "nsp_accuracy": sums["nsp_right"] / sums["pairs"]}
        return found

    def judge(self) -> dict[str, float]:
        """Perplexity and accuracies on text that is never trained on, always masked alike."""
        recipe = self.recipe
        if not self.corpus.held_out():
            return {}
        if self._held_out is None:
            room = self.stages[0][0] - self._specials()
            shards = [shard for group in groups(self.corpus, "dev", ()) for shard in group]
            self._held_out = plan(self.corpus, "dev", shards, room=room, pairs=recipe.nsp, seed=(0,))
        sums: dict[str, float] = {}
        with torch.inference_mode():
            total = min(len(self._held_out), HELD_OUT_SEQUENCES)
            for at in range(0, total, JUDGED_AT_ONCE):
                chosen = np.arange(at, min(at + JUDGED_AT_ONCE, total))
                rng = np.random.default_rng((0, at))
                made = [
                    self._masked(window, rng)
                    for window in windows(self._held_out, chosen, self.tokenizer, pairs=recipe.nsp)
                ]
                _, figures = self._losses(*self._batch(made), NO_DROPOUT)
                sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        judged = self.figures(sums | {"loss": 0.0}, 1)
        del judged["loss"]
        return judged | {"perplexity": math.exp(min(judged["mlm_loss"], 50.0))}

    def _next(self, size: int) -> tuple[Sequences, np.ndarray]:
        """The next `size` sequences; those at a group's end that do not fill an update are read in another epoch."""
        state, recipe = self.state, self.recipe
        for _ in range(2 + len(self.corpus.shards)):
            key = (state["stage"], state["turns"])
            if self._planned is None or self._planned[0] != key:
                seed = (recipe.seed, *key)
                epoch, turn = divmod(state["turns"], len(groups(self.corpus, "train", ())))
                shards = groups(self.corpus, "train", (recipe.seed, state["stage"], epoch))[turn]
                room = self.stages[state["stage"]][0] - self._specials()
                self._planned = key, plan(self.corpus, "train", shards, room=room, pairs=recipe.nsp, seed=seed)
            sequences = self._planned[1]
            if state["place"] + size <= len(sequences):
                chosen = np.arange(state["place"], state["place"] + size)
                rows = sequences.rows[chosen]
                state["place"] += size
                state["seen"] += int((rows[:, 2] - rows[:, 1] + rows[:, 5] - rows[:, 4]).sum())
                return sequences, chosen
            state |= {"turns": state["turns"] + 1, "place": 0}
        raise DataError(
            f"the corpus has too little text for an update of {size} sequences; lower --batch-size, or take more text"
        )

    def _specials(self) -> int:
        return sum(slot.text < 0 for slot in self.tokenizer.layout(2 if self.recipe.nsp else 1))

    def _masked(self, window: Encoded, rng: np.random.Generator) -> tuple[Encoded, np.ndarray]:
        """A window with pieces hidden, and what they were."""
        places = self.masking.choose(window.ids, rng)
        reads = np.concatenate(([0], places)) if self.recipe.nsp else places
        hidden = self.masking.hide(window.ids, places, rng)
        return Encoded(
            hidden, window.type_ids, window.offsets, window.words, window.texts, 0, 0, reads=reads, target=window.target
        ), window.ids[places]

    def _batch(self, made: list[tuple[Encoded, np.ndarray]]) -> tuple[Batch, np.ndarray, np.ndarray]:
        """Sequences, the pieces that were hidden, and the labels of pairs, in the order of the batch."""
        batch = make_batch([window for window, _ in made])
        targets = np.concatenate([made[member][1] for member in batch.members])
        return batch, targets, np.array([made[member][0].target for member in batch.members])

    def _losses(
        self, batch: Batch, targets: np.ndarray, labels: np.ndarray, dropout: Dropout
    ) -> tuple[tuple[Tensor, Tensor], dict[str, float]]:
        """The sums of both losses, and what is counted."""
        firsts = np.zeros(len(batch.reads), bool)
        device = self.devices.device
        if self.recipe.nsp:
            firsts[np.cumsum(batch.counts) - batch.counts] = True
        inputs = packed_inputs(batch, self.model.config.num_attention_heads, device)
        guess, follows = self.model(*inputs, torch.from_numpy(firsts).to(device), dropout)
        gold = torch.from_numpy(targets.astype(np.int64)).to(device)
        mlm, right = self.model.masked_losses(guess, gold, self.dtype)
        figures = {"mlm_loss": float(mlm.detach()), "mlm_right": float(right), "masked": float(len(targets))}
        if follows is None:
            return (mlm, mlm.new_zeros(())), figures
        answers = torch.from_numpy(labels).to(device)
        nsp = F.cross_entropy(follows, answers, reduction="sum")
        figures |= {
            "nsp_loss": float(nsp.detach()),
            "nsp_right": float((follows.argmax(1) == answers).sum()),
            "pairs": float(len(labels)),
        }
        return (mlm, nsp), figures
