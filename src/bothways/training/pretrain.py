"""Pretraining for the training loop: masked tokens and, with pairs, next-sentence prediction.

All randomness depends on the seed and its use: order and pairs on the group of shards, masks on the update and the
position in it, dropout on the update and its part. So a resumed run equals an uninterrupted one, and several devices
compute the same updates as one (with dropout, as one that computes the same number of parts).
N tokens, K masked tokens, B sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import Batch, make_batch
from bothways.errors import CheckpointError, DataError, OptionError
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.forward import Precision, packed_inputs
from bothways.model.layout import on_device
from bothways.model.pretraining import PretrainModel
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.corpus import Corpus
from bothways.training.devices import Devices
from bothways.training.loop import Part, RunPlan
from bothways.training.masking import Masking
from bothways.training.recipe import PretrainRecipe
from bothways.training.sequences import Sequences, groups, plan, windows

HELD_OUT_SEQUENCES = 512  # the same for every evaluation
EVALUATED_AT_ONCE = 32
MASKS, DROPS = 0, 1  # the last number of a seed


class Pretraining:
    """The sequences of a corpus, stage by stage; each epoch draws new sequences, pairs and masks.

    Raises `DataError` if the corpus has too little text, `CheckpointError` if the model or vocabulary does not support
    the recipe, and `OptionError` if the batch cannot be divided.
    """

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
        self.precision = precision
        model.to(devices.device)
        self.masking = Masking.of(tokenizer, rate=recipe.mlm_probability, whole_word_mask=recipe.whole_word_mask)
        self.stages = recipe.stages()
        # The start of the next update: `turns` counts groups of shards, `place` the sequences in the current group.
        self.state: dict[str, Any] = {"stage": 0, "turns": 0, "place": 0, "seen": 0}
        self._planned: tuple[tuple[int, int], Sequences] | None = None
        self._held_out: list[Encoded] | None = None
        self.parts_an_update = recipe.gradient_accumulation_steps * devices.size
        if recipe.batch_size % self.parts_an_update:
            raise OptionError(
                f"batch_size is {recipe.batch_size}, expected a multiple of {self.parts_an_update} "
                "(gradient_accumulation_steps times the number of processes)"
            )
        if recipe.nsp:
            self._check_pairs()
        self._next(recipe.batch_size)  # raises if there is too little text; its plan is reused
        self.state |= {"turns": 0, "place": 0, "seen": 0}

    def plan(
        self, directory: Path, identity: Mapping[str, Any], learning_rate: float, time_budget: float | None = None
    ) -> RunPlan:
        """Return the plan of the run."""
        size, length = self.recipe.batch_size // self.parts_an_update, self.stages[0][0]
        return RunPlan(
            title="pretraining",
            directory=directory,
            identity=identity,
            batch=f"a batch of {size} sequences of {length} tokens",
            total=self.recipe.steps,
            time_budget=time_budget,
            eval_steps=self.recipe.eval_steps,
            learning_rate=learning_rate,
            evaluate_first=True,
        )

    def training(self) -> AbstractContextManager[None]:
        """Do nothing: the model needs no preparation."""
        return nullcontext()

    def _check_pairs(self) -> None:
        if self.corpus.documents < 2:
            raise DataError(
                "next-sentence prediction needs sentences of two documents, found one; put blank lines between "
                "documents, or leave it out with --no-nsp"
            )
        types = {slot.type_id for slot in self.tokenizer.layout(2)}
        if types != {0, 1} or self.model.config.type_vocab_size < 2:
            raise CheckpointError(
                "next-sentence prediction needs segments 0 and 1, which this vocabulary or model does not have; "
                "leave it out with --no-nsp"
            )

    def epoch(self, step: int) -> float:
        """Return the number of passes over the corpus, in tokens."""
        return float(self.state["seen"]) / self.corpus.tokens

    def parts(self, step: int, share: float) -> Iterator[Part]:
        """Yield this device's parts of one update."""
        recipe, devices, parts = self.recipe, self.devices, self.parts_an_update
        stage = next(
            place for place, (_, end) in enumerate(self.stages) if share < end or place == len(self.stages) - 1
        )
        if stage != self.state["stage"]:  # skip the rest of a group planned for another length
            self.state |= {"stage": stage, "turns": self.state["turns"] + 1, "place": 0}
        size = max(parts, recipe.batch_size * self.stages[0][0] // self.stages[stage][0] // parts * parts)
        sequences, chosen = self._next(size)
        own = []
        for part in range(devices.rank, parts, devices.size):
            places = np.arange(part, len(chosen), parts)
            made = windows(sequences, chosen[places], self.tokenizer, pairs=recipe.nsp)
            seeds = ((recipe.seed, step, place, MASKS) for place in places.tolist())
            masked = [self._masked(window, _rng(*seed)) for window, seed in zip(made, seeds, strict=True)]
            own.append((self._batch(masked), Dropout(_rng(recipe.seed, step, part, DROPS))))
        hidden = devices.total({"hidden": float(sum(len(targets) for (_, targets, _), _ in own))})["hidden"]
        for (batch, targets, labels), dropout in own:
            losses, figures = self._losses(batch, targets, labels, dropout)
            loss = losses[0] / max(hidden, 1.0)
            if recipe.nsp:
                loss = loss + losses[1] / len(chosen)
            yield loss, figures | {"loss": loss.detach(), "tokens": float(len(batch.ids))}

    def figures(self, sums: dict[str, float], steps: int) -> dict[str, float]:
        """Return mean losses and accuracies over tokens and pairs."""
        masked = max(sums["masked"], 1.0)
        found = {
            "loss": sums["loss"] / steps,
            "mlm_loss": sums["mlm_loss"] / masked,
            "mlm_accuracy": sums["mlm_right"] / masked,
        }
        if self.recipe.nsp:
            found |= {"nsp_loss": sums["nsp_loss"] / sums["pairs"], "nsp_accuracy": sums["nsp_right"] / sums["pairs"]}
        return found

    def evaluate(self) -> dict[str, float]:
        """Return losses, accuracies and perplexity on held-out text, always with the same masks."""
        if self._held_out is None:
            self._held_out = self._plan_held_out()
        if not self._held_out:
            return {}
        sums: dict[str, float] = {}
        with torch.inference_mode():
            for at in range(0, len(self._held_out), EVALUATED_AT_ONCE):
                some = self._held_out[at : at + EVALUATED_AT_ONCE]
                made = [self._masked(window, _rng(place, MASKS)) for place, window in enumerate(some, start=at)]
                _, figures = self._losses(*self._batch(made), NO_DROPOUT)
                sums = {name: sums.get(name, 0.0) + float(value) for name, value in figures.items()}
        evaluated = self.figures(sums | {"loss": 0.0}, 1)
        del evaluated["loss"]
        if self.recipe.nsp and not any(window.target for window in self._held_out):  # all from one document
            del evaluated["nsp_loss"], evaluated["nsp_accuracy"]
        return evaluated | {"perplexity": math.exp(min(evaluated["mlm_loss"], 50.0))}

    def _plan_held_out(self) -> list[Encoded]:
        """Return the evaluation sequences, from the first shards with held-out text."""
        found: list[Encoded] = []
        room, pairs = self.stages[0][0] - self._specials(), self.recipe.nsp
        for group in groups(self.corpus, "dev", ()):
            for shard in group:
                planned = plan(self.corpus, "dev", [shard], room=room, pairs=pairs, seed=(0, shard))
                chosen = np.arange(min(len(planned), HELD_OUT_SEQUENCES - len(found)))
                found += windows(planned, chosen, self.tokenizer, pairs=pairs)
                if len(found) == HELD_OUT_SEQUENCES:
                    return found
        return found

    def _next(self, size: int) -> tuple[Sequences, np.ndarray]:
        """Return the next `size` sequences; a remainder at the end of a group is skipped in this epoch."""
        state, recipe = self.state, self.recipe
        for _ in range(2 + len(self.corpus.shards)):
            key = (state["stage"], state["turns"])
            if self._planned is None or self._planned[0] != key:
                epoch, turn = divmod(state["turns"], len(groups(self.corpus, "train", ())))
                shards = groups(self.corpus, "train", (recipe.seed, epoch))[turn]
                room = self.stages[state["stage"]][0] - self._specials()
                planned = plan(self.corpus, "train", shards, room=room, pairs=recipe.nsp, seed=(recipe.seed, *key))
                self._planned = key, planned
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
        """Return a window with masked tokens, and the original tokens."""
        places = self.masking.choose(window.ids, rng)
        positions = np.concatenate(([0], places)) if self.recipe.nsp else places
        hidden = self.masking.hide(window.ids, places, rng)
        return Encoded(
            hidden,
            window.type_ids,
            window.offsets,
            window.word_ids,
            window.sequence_ids,
            0,
            0,
            head_positions=positions,
            target=window.target,
        ), window.ids[places]

    def _batch(self, made: list[tuple[Encoded, np.ndarray]]) -> tuple[Batch, np.ndarray, np.ndarray]:
        """Return the batch, the masked tokens and the labels of pairs, in the order of the batch."""
        batch = make_batch([window for window, _ in made])
        targets = np.concatenate([made[member][1] for member in batch.members])
        return batch, targets, np.array([made[member][0].target for member in batch.members])

    def _losses(
        self, batch: Batch, targets: np.ndarray, labels: np.ndarray, dropout: Dropout
    ) -> tuple[tuple[Tensor, Tensor], dict[str, float | Tensor]]:
        """Return the sums of both losses, and the figures of the batch."""
        firsts = np.zeros(len(batch.head_positions), bool)
        device = self.devices.device
        if self.recipe.nsp:
            firsts[np.cumsum(batch.counts) - batch.counts] = True
        guess, follows = self.model(*packed_inputs(batch, self.model.encoder), on_device(firsts, device), dropout)
        reference = on_device(targets.astype(np.int64), device)
        mlm, right = self.model.masked_losses(
            guess, reference, torch.bfloat16 if self.precision == "bf16" else torch.float32
        )
        figures: dict[str, float | Tensor] = {
            "mlm_loss": mlm.detach(),
            "mlm_right": right,
            "masked": float(len(targets)),
        }
        if follows is None:
            return (mlm, mlm.new_zeros(())), figures
        answers = on_device(labels, device)
        nsp = F.cross_entropy(follows, answers, reduction="sum")
        figures |= {
            "nsp_loss": nsp.detach(),
            "nsp_right": (follows.argmax(1) == answers).sum(),
            "pairs": float(len(labels)),
        }
        return (mlm, nsp), figures


def _rng(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))
