"""The weights of a training: current, averaged and best, with their optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_cropeq.core.model import Model, State
from napari_cropeq.core.network import Network
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.muon import Muon

__all__ = ["LearntWeights"]

MOMENTS = ("exp_avg", "exp_avg_sq")


class LearntWeights:
    """A network in training: its weights, their running average, the best so far, and the optimiser.

    Parameters
    ----------
    network : Network
        Untrained, on the device of the training.
    config : TrainingConfig
        Optimiser, learning rate and share of the running average.
    start : Model, optional
        Start with its weights and, if it has one, the state of its optimiser.

    Attributes
    ----------
    network : Network
        With the weights of the last step.
    average : dict
        Their running average; empty if there is none.
    best : dict
        The weights of the lowest validation loss, and that loss: ``best_loss``.
    steps : int
        Steps of the optimiser so far.
    """

    def __init__(self, network: Network, config: TrainingConfig, start: Model | None = None) -> None:
        state = None if start is None else start.state
        if start is not None:
            last = {} if state is None else state.group("last")
            network.load_state_dict(last or start.network.state_dict())
        self.network = network
        self.best = copy.deepcopy(network.state_dict() if start is None else start.network.state_dict())
        self.best_loss = math.inf
        device, average = network.tail.weight.device, {} if state is None else state.group("average")
        self.average: dict[str, Tensor] = {k: v.to(device) for k, v in average.items()}
        self.steps = 0 if state is None else state.steps
        self._share_kept = config.average
        self._optimiser = _optimiser(network, config, state)

    @property
    def current(self) -> dict[str, Tensor]:
        """The current weights: their average if there is one."""
        return self.average or self.network.state_dict()

    def network_with(self, weights: Mapping[str, Tensor]) -> Network:
        """Return a copy of the network with these weights, on its device."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(weights)
        return network

    def frozen(self, weights: Mapping[str, Tensor]) -> Network:
        """Return a copy of the network with these weights, on the CPU, in evaluation mode and without gradients."""
        return self.network_with(weights).cpu().eval().requires_grad_(False)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def forget_gradients(self) -> None:
        """Free the gradients."""
        self._optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Make one step along the accumulated gradients."""
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self.steps += 1
        self._update_average()

    def keep_if_best(self, weights: Mapping[str, Tensor], loss: float) -> bool:
        """Keep the weights if their validation loss is the lowest so far; return whether it is."""
        if not loss < self.best_loss:
            return False
        self.best_loss = loss
        self.best = {k: v.detach().cpu().clone() for k, v in weights.items()}
        return True

    def state(self, patches: int, seconds: float) -> State | None:
        """Return the state to resume the training from, or None if a weight is NaN or infinite."""
        tensors = {f"last/{k}": v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        tensors |= {f"average/{k}": v.detach().cpu().clone() for k, v in self.average.items()}
        for name, weight in self.network.named_parameters():
            for moment in MOMENTS:
                if moment in self._optimiser.state.get(weight, {}):
                    tensors[f"{moment}/{name}"] = self._optimiser.state[weight][moment].detach().cpu().clone()
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            return None
        return State(tensors, self.steps, patches, seconds)

    def _update_average(self) -> None:
        """Update the running average; it starts as a plain mean."""
        if not self._share_kept:
            return
        weights = self.network.state_dict()
        if not self.average:
            self.average = {k: v.clone() for k, v in weights.items()}
            return
        keep = min(self._share_kept, (self.steps + 1) / (self.steps + 10))
        for name, mean in self.average.items():
            mean.lerp_(weights[name], 1 - keep)


def _optimiser(network: Network, config: TrainingConfig, state: State | None) -> torch.optim.Optimizer | Muon:
    optimiser: torch.optim.Optimizer | Muon = (
        Muon(network, config.rate, config.decay)
        if config.optimiser == "muon"
        else torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.decay)
    )
    if state is not None:
        moments = {moment: state.group(moment) for moment in MOMENTS}
        for name, weight in network.named_parameters():
            kept = {k: v[name].to(weight).clone() for k, v in moments.items() if name in v}
            if kept:
                optimiser.state[weight] = {"step": torch.tensor(float(state.steps)), **kept}
    return optimiser
