"""AdamW with fp32 master weights for parameters in bf16.

The model holds its large matrices in bf16, because their products run four times faster; the optimizer updates fp32
masters. On a CPU, the gradient, moments and master of each matrix pass through the cache once: cast, clip, update
(PyTorch's fused kernel) and round back. On a GPU all matrices are updated in a few calls, without waiting for the norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bothways.training.devices import Devices


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share a learning-rate factor and a weight decay."""

    names: tuple[str, ...]
    lr_factor: float
    weight_decay: float


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) over named parameters; create it while they are still fp32.

    Parameters converted to bf16 later keep their fp32 master here; the others are their own master.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters = dict(model.named_parameters())
        self.groups, self.betas, self.eps = tuple(groups), betas, eps
        learned = [name for group in self.groups for name in group.names]
        self.master = {name: self.parameters[name].detach() for name in learned}
        self.first = {name: torch.zeros_like(master) for name, master in self.master.items()}
        self.second = {name: torch.zeros_like(master) for name, master in self.master.items()}
        device = next(iter(self.master.values())).device
        self.steps = {name: torch.zeros((), device=device) for name in learned}
        self.sums: dict[str, Tensor] = {}  # fp32 sums of the gradients of several batches
        self.device = device
        largest = max(master.numel() for master in self.master.values())
        self._scratch = torch.empty(largest if device.type == "cpu" else 0)  # one fp32 gradient at a time

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradients to those of previous batches, in fp32: bf16 would lose small values."""
        for name in self.master:
            parameter = self.parameters[name]
            if parameter.grad is not None:
                self.sums[name] = parameter.grad.float() if name not in self.sums else self.sums[name] + parameter.grad
                parameter.grad = None

    @torch.no_grad()
    def add_up(self, devices: Devices) -> None:
        """Sum the gradients of all devices in fp32, so that all make the same step."""
        if devices.size == 1:
            return
        self.collect()
        sizes = [master.numel() for master in self.master.values()]
        flat = torch.zeros(sum(sizes), device=self.device)
        parts = dict(zip(self.master, torch.split(flat, sizes), strict=True))
        for name, grad in self.sums.items():
            parts[name].copy_(grad.view(-1))
        devices.add_up(flat)
        self.sums = {name: part.view_as(self.master[name]) for name, part in parts.items()}

    @torch.no_grad()
    def step(self, lr: float, *, max_norm: float) -> Tensor:
        """Clip the gradients to a total norm of `max_norm`, update at `lr` and clear the gradients; returns their norm.

        If the norm is not finite, no weights are changed.
        """
        given = {name: self.sums.pop(name, self.parameters[name].grad) for name in self.master}
        grads = {name: grad for name, grad in given.items() if grad is not None}
        if self.device.type != "cpu":
            return self._step_together(grads, lr, max_norm)
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(grad).float() for grad in grads.values()])
        )
        if not torch.isfinite(norm):
            return norm
        clip = float(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        for group in self.groups:
            for name in group.names:
                if name not in grads:
                    continue
                grad = grads[name]
                scaled = self._scratch[: grad.numel()].view(grad.shape).copy_(grad)
                if clip < 1.0:
                    scaled.mul_(clip)
                self._update([name], [scaled], group, lr)
                self.parameters[name].grad = None
        return norm

    def _step_together(self, grads: dict[str, Tensor], lr: float, max_norm: float) -> Tensor:
        """Do the same with few calls; only the GPU checks whether the norm is finite."""
        full = {name: torch.empty_like(self.master[name]) for name in grads}
        torch._foreach_copy_([*full.values()], [*grads.values()])
        norm = nn.utils.get_total_norm(full.values(), foreach=True)
        above = torch.clamp((norm + 1e-6) / max_norm, min=1.0)  # divides the gradients
        unusable = (~torch.isfinite(norm)).float()
        for group in self.groups:
            names = [name for name in group.names if name in full]
            self._update(names, [full[name] for name in names], group, lr, grad_scale=above, found_inf=unusable)
        for name in grads:
            self.parameters[name].grad = None
        return norm

    def _update(self, names: Sequence[str], grads: list[Tensor], group: Group, lr: float, **checks: Tensor) -> None:
        masters = [self.master[name] for name in names]
        adamw(
            masters,
            grads,
            [self.first[name] for name in names],
            [self.second[name] for name in names],
            [],
            [self.steps[name] for name in names],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr * group.lr_factor,
            weight_decay=group.weight_decay,
            eps=self.eps,
            maximize=False,
            **checks,  # type: ignore[arg-type]
        )
        lower = [name for name in names if self.parameters[name].dtype != self.master[name].dtype]
        if lower:
            torch._foreach_copy_([self.parameters[name] for name in lower], [self.master[name] for name in lower])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and value of every tensor needed to resume."""
        for kind, tensors in self._kinds():
            for name, tensor in tensors.items():
                yield f"{kind}/{name}", tensor

    @torch.no_grad()
    def restore(self, saved: dict[str, Tensor]) -> None:
        """Restore the tensors that `tensors` returned, and the weights of the model."""
        for kind, tensors in self._kinds():
            for name, tensor in tensors.items():
                tensor.copy_(saved[f"{kind}/{name}"])
        for name, master in self.master.items():
            self.parameters[name].copy_(master)

    def _kinds(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "master", self.master
        yield "first", self.first
        yield "second", self.second
        yield "steps", self.steps


def parameter_groups(model: nn.Module, layer_decay: float, weight_decay: float) -> list[Group]:
    """Group parameters by weight decay (none for biases and norms) and layer-wise learning rate."""
    depth = len(model.get_submodule("encoder.layers")._modules)
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below = 0
        if name.startswith("encoder.embeddings."):
            below = depth + 1
        elif name.startswith("encoder.relative."):
            below = depth  # like the lowest layer, the first to use it
        elif name.startswith("encoder.layers."):
            below = depth - int(name.split(".")[2])
        plain = name.endswith(".bias") or "norm" in name
        key = (layer_decay**below, 0.0 if plain else weight_decay)
        groups.setdefault(key, []).append(name)
    return [Group(tuple(names), factor, decay) for (factor, decay), names in groups.items()]
