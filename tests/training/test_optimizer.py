"""The optimizer makes the steps of torch.optim.AdamW with clip_grad_norm_."""

import math

import pytest
import torch
from torch import nn

from bothways.training.optimizer import Group, MasterAdamW

BETAS = (0.9, 0.98)


def layers() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3))


def gradients(model: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """The gradients of a step; those of every third are small enough not to be clipped."""
    generator = torch.Generator().manual_seed(step)
    size = 0.01 if step % 3 == 2 else 3.0
    return {name: size * torch.randn(value.shape, generator=generator) for name, value in model.named_parameters()}


@pytest.mark.parametrize("parts", [1, 3], ids=["whole", "accumulated"])
@pytest.mark.parametrize(("max_norm", "eps"), [(1.0, 1e-6), (1e9, 1e-8)], ids=["clipped", "unclipped"])
def test_steps_are_those_of_adamw_and_clip_grad_norm(parts, max_norm, eps):
    ours, theirs = layers(), layers()
    decayed = tuple(name for name, value in ours.named_parameters() if value.ndim > 1)
    plain = tuple(name for name, _ in ours.named_parameters() if name not in decayed)
    optimizer = MasterAdamW(ours, [Group(decayed, 1.0, 0.1), Group(plain, 0.5, 0.0)], betas=BETAS, eps=eps)
    named = dict(theirs.named_parameters())
    groups = [
        {"params": [named[name] for name in decayed], "weight_decay": 0.1, "factor": 1.0},
        {"params": [named[name] for name in plain], "weight_decay": 0.0, "factor": 0.5},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, eps=eps)
    for step in range(6):
        lr = 0.01 * (step + 1)  # a schedule
        grads = gradients(ours, step)
        for part in range(parts):
            if part:
                optimizer.collect()
            for name, value in ours.named_parameters():
                value.grad = grads[name] / parts
        if parts > 1:
            optimizer.collect()
        for name, value in named.items():
            value.grad = grads[name].clone()
        for group in reference.param_groups:
            group["lr"] = lr * group["factor"]
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        reference.step()
        assert float(optimizer.step(lr, max_norm=max_norm)) == pytest.approx(float(expected), rel=1e-5)
        for name, value in ours.named_parameters():
            torch.testing.assert_close(value, named[name], rtol=1e-5, atol=1e-7, msg=f"{name} after step {step}")
            assert value.grad is None


def test_bf16_parameters_follow_an_fp32_master_that_makes_the_steps_of_adamw():
    ours, theirs = layers(), layers()
    names = tuple(name for name, _ in ours.named_parameters())
    optimizer = MasterAdamW(ours, [Group(names, 1.0, 0.01)])
    ours.to(torch.bfloat16)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-4, weight_decay=0.01)
    for step in range(6):
        grads = {name: grad.bfloat16() for name, grad in gradients(ours, step).items()}
        for name, value in ours.named_parameters():
            value.grad = grads[name].clone()
        for name, value in theirs.named_parameters():
            value.grad = grads[name].float()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()
        optimizer.step(1e-4, max_norm=1.0)
    for (name, value), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(optimizer.master[name], expected.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(value, optimizer.master[name].bfloat16())


def test_a_gradient_that_is_not_a_number_changes_nothing():
    model = layers()
    optimizer = MasterAdamW(model, [Group(tuple(name for name, _ in model.named_parameters()), 1.0, 0.1)])
    before = [value.detach().clone() for value in model.parameters()]
    for value in model.parameters():
        value.grad = torch.full_like(value, float("nan"))
    assert math.isnan(optimizer.step(1.0, max_norm=1.0))
    assert all(torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))


def test_parameters_without_a_gradient_stay():
    model = layers()
    optimizer = MasterAdamW(model, [Group(("0.weight", "2.weight"), 1.0, 0.1)])
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = model[2].weight.detach().clone()
    optimizer.step(0.1, max_norm=1.0)
    assert torch.equal(model[2].weight, before)
