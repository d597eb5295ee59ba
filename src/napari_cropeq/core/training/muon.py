"""The Muon optimiser: steps of equal size along all directions of a weight matrix."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon"]

MOMENTUM = 0.95
BETAS = (0.9, 0.999)
EPSILON = 1e-8
MATRIX_RATE = 10.0
"""Ratio of a matrix's step to AdamW's, since its size is spread over all directions."""


class Muon:
    """Orthogonalised momentum for the weights between feature maps, AdamW for all others.

    A convolution between feature maps is treated as a matrix (out, in * kernel); its momentum is replaced by the
    nearest orthogonal matrix before the step. In the same time this gained 0.5 dB or more over AdamW on the benchmark
    (``benchmarks/results/recipes.md``). torch's own Muon supports two-dimensional weights only.

    Parameters
    ----------
    network : Module
        ``network.body`` has the convolutions between feature maps.
    rate : float
        Learning rate of AdamW; that of matrices is ``MATRIX_RATE`` times as large.
    decay : float
        Weight decay of the weights that AdamW updates.

    Notes
    -----
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. The class has the methods of
    torch's optimisers that are used here, and AdamW's names in its state (``exp_avg`` is the momentum), but does not
    inherit from them: creating a torch optimiser imports torch's compiler, which blocks the window for a second.
    """

    def __init__(self, network: nn.Module, rate: float, decay: float) -> None:
        matrices = [w for w in network.body.parameters() if w.ndim == 4]  # type: ignore[union-attr]
        known = {id(w) for w in matrices}
        others = [w for w in network.parameters() if id(w) not in known]
        shared = {"lr": rate, "weight_decay": decay}
        self.param_groups: list[dict[str, Any]] = [
            {"params": matrices, "matrix": True, **shared},
            {"params": others, "matrix": False, **shared},
        ]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None if set_to_none or weight.grad is None else torch.zeros_like(weight)

    @torch.no_grad()
    def step(self) -> None:
        """Make a step along the gradients of all weights that have one."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    (self._step_matrix if group["matrix"] else self._step_adamw)(weight, weight.grad, group)

    def _step_matrix(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(weight)}
        state["step"] += 1
        state["exp_avg"].mul_(MOMENTUM).add_(gradient)
        ahead = gradient + MOMENTUM * state["exp_avg"]  # Nesterov
        direction = orthogonal(ahead.reshape(len(weight), -1)).reshape(weight.shape)
        weight.add_(direction, alpha=-MATRIX_RATE * group["lr"])

    def _step_adamw(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            zeros = (torch.zeros_like(weight), torch.zeros_like(weight))
            state |= {"step": torch.tensor(0.0), "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
        state["step"] += 1
        step = float(state["step"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        state["exp_avg"].lerp_(gradient, 1 - BETAS[0])
        state["exp_avg_sq"].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        spread = (state["exp_avg_sq"] / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        weight.addcdiv_(state["exp_avg"], spread, value=-group["lr"] / (1 - BETAS[0] ** step))


def orthogonal(matrix: Tensor) -> Tensor:
    """Return approximately the nearest (semi-)orthogonal matrix (rows, columns).

    Five Newton-Schulz steps with coefficients that bring the singular values to 0.7 to 1.2 (Jordan et al., 2024).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    nearest: Tensor = x.T if tall else x
    return nearest
