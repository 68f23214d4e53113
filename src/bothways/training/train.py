"""Train a model: the steps of fine-tuning and pretraining before and after the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bothways.model.config import EncoderConfig
from bothways.model.forward import enough_memory, set_precision
from bothways.model.heads import LinearHead
from bothways.progress import Reporter
from bothways.training.devices import LOWER
from bothways.training.loop import RunPlan, State, Work, run
from bothways.training.optimizer import MasterAdamW, parameter_groups


def train(work: Work, plan: RunPlan, reporter: Reporter, *, resume: bool = False) -> State:
    """Train the fp32 model of `work` in place; it ends in fp32, with the weights that `plan` keeps.

    Raises `InterruptedRunError` after Ctrl-C or SIGTERM, with everything saved.
    """
    model = work.model
    with (
        work.training(),
        dropout_rate(model, work.recipe.dropout),
        enough_memory(plan.batch, LOWER),
        gpu_settings(work.devices.device),
    ):
        optimizer = MasterAdamW(model, parameter_groups(model, plan.layer_decay, work.recipe.weight_decay))
        weights = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
        set_precision(model.encoder, work.precision)  # after copying fp32 masters and frozen weights
        state, learned = run(optimizer, work, plan, reporter, resume=resume, devices=work.devices)
        model.float()
        weights |= learned
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
    return state


@contextmanager
def gpu_settings(device: torch.device) -> Iterator[None]:
    """Use TF32 for fp32 products on a GPU; restores the setting and the state of its random generator at the end."""
    if device.type == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.random.fork_rng(devices=[device]):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def dropout_rate(model: nn.Module, rate: float | None) -> Iterator[None]:
    """Set the dropout rate of a model while the block runs; None leaves it unchanged.

    The config is restored afterwards, so the saved model keeps its own rate.
    """
    configs, rates = [], []
    for module in model.modules() if rate is not None else ():
        config = getattr(module, "config", None)
        if isinstance(config, EncoderConfig):
            configs.append((module, config))
        # Heads without dropout in their family stay without it.
        if isinstance(module, LinearHead) and (module.rate or getattr(model, "head_name", "") == "tokens"):
            rates.append((module, module.rate))
    try:
        for module, config in configs:
            module.config = config.replace(  # type: ignore[assignment]
                hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, classifier_dropout=rate
            )
        for head, _ in rates:
            head.rate = float(rate or 0.0)
        yield
    finally:
        for module, config in configs:
            module.config = config  # type: ignore[assignment]
        for head, before in rates:
            head.rate = before
