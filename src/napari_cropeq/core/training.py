"""Self-supervised training as a generator that yields its progress."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cropeq.core.allocator import keep_freed_memory
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model, provenance
from napari_cropeq.core.network import Network, build_network
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.patches import Pairs, PatchSampler
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.spline import ArrayLike

__all__ = ["Progress", "Recipe", "Training", "edge_loss"]

MIN_TARGET = 3
"""Smallest target that has an edge, px."""

SOBEL = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8


@dataclass(frozen=True)
class Recipe:
    """What decides a training; each field says what it is, with its unit."""

    minutes: float | None = field(default=2.0, metadata={"help": "time budget, minutes"})
    patches: int | None = field(default=None, metadata={"help": "patch budget, instead of a time budget"})
    filters: int = field(default=32, metadata={"help": "feature maps between layers"})
    network: str = field(default="valid", metadata={"help": "valid, or padded to compare with"})
    blocks: int | None = field(default=None, metadata={"help": "residual blocks; 7 (valid) or 32 (padded) by default"})
    kernel: int = field(default=3, metadata={"help": "side of a convolution kernel, px"})
    patch: int = field(default=64, metadata={"help": "side of an input patch, px"})
    batch: int = field(default=16, metadata={"help": "patches a step"})
    rate: float = field(default=1e-3, metadata={"help": "peak learning rate; warm-up, then a cosine to zero"})
    edge_weight: float = field(default=1.0, metadata={"help": "weight of the Sobel-edge loss beside L1"})
    validation: int = field(default=64, metadata={"help": "patches held to choose the best weights by"})
    match_noise: bool = field(default=True, metadata={"help": "give LR patches the noise of real axial samples"})
    seed: int = field(default=0, metadata={"help": "fixes weights and patches"})

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.patches is None):
            raise ValueError("Got both or neither of minutes and patches, expected one budget: give one of them.")
        budget, name = (self.minutes, "minutes") if self.patches is None else (self.patches, "patches")
        if budget is None or not (math.isfinite(budget) and budget > 0):
            raise ValueError(f"Got {budget} {name}, expected a positive number: give a larger training budget.")
        if self.batch < 1 or self.patch < 33 or not self.rate > 0:
            raise ValueError("Got a batch below 1, a patch below 33 px or a rate of 0: choose larger ones.")
        if self.validation < 1 or self.seed < 0 or not 0 <= self.edge_weight < math.inf:
            raise ValueError(
                f"Got {self.validation} validation patches, seed {self.seed} and edge weight {self.edge_weight:g}, "
                "expected at least 1, 0 and 0: choose larger ones."
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands."""

    patches: int
    seconds: float
    fraction: float  # of the budget
    loss: float
    validation: float | None  # only where just measured

    @property
    def seconds_left(self) -> float:
        """Estimated time to the end, s."""
        return self.seconds * (1 / self.fraction - 1) if self.fraction > 0 else math.inf


class Training:
    """Trains a network on a source; iterate :meth:`run`, then (or at any time) take :attr:`network`.

    Parameters
    ----------
    source : array-like (z, y, x)
        The acquired volume.
    acquisition : Acquisition
        Its grid and slice profile.
    recipe : Recipe
        Budget and settings. With a patch budget the same seed gives the same bits on the CPU.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    normalisation : Normalisation, optional
        Measured from the source by default.

    Raises
    ------
    ValueError
        If the source cannot be trained on.
    """

    def __init__(
        self,
        source: ArrayLike,
        acquisition: Acquisition,
        recipe: Recipe,
        device: str = "auto",
        normalisation: Normalisation | None = None,
    ) -> None:
        keep_freed_memory()
        self.recipe, self.acquisition, self.device = recipe, acquisition, choose_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._network = _network_of(recipe).to(self.device)
        shrink = self._network.shrink
        if recipe.patch < shrink + MIN_TARGET:
            raise ValueError(
                f"Got patches of {recipe.patch} px for a network that crops {shrink}, expected at least "
                f"{shrink + MIN_TARGET}: choose larger patches or a smaller network."
            )
        self.normalisation = normalisation or Normalisation.measure(source, recipe.seed)
        self._sampler = PatchSampler(
            source, acquisition, self.normalisation, recipe.patch, shrink, recipe.seed, recipe.match_noise
        )
        self.noise = self._sampler.noise
        self.history: list[Progress] = []
        self._best: dict[str, Tensor] | None = None
        self._best_loss = math.inf

    @property
    def network(self) -> Network:
        """The weights of the lowest validation loss so far, on the CPU."""
        best = copy.deepcopy(self._network).cpu()
        if self._best is not None:
            best.load_state_dict(self._best)
        return best.eval().requires_grad_(False)

    def run(self) -> Iterator[Progress]:
        """Train until the budget is spent, yielding after every step.

        Raises
        ------
        ArithmeticError
            If the loss becomes NaN or infinite; the best weights so far are kept.
        """
        recipe, network = self.recipe, self._network.train()
        held = self._to_device(self._sampler.draw(recipe.validation))
        self._validate(held)  # the untrained network is the interpolation: what is kept is never worse
        optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate)
        start, done, smooth, fraction = time.monotonic(), 0, math.nan, 0.0
        checked = 0.0
        while fraction < 1:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * schedule(fraction, done // recipe.batch)
            batch = self._to_device(self._sampler.draw(recipe.batch))
            loss = self._step(optimiser, batch)
            if not math.isfinite(loss):
                raise ArithmeticError(
                    f"Got a loss of {loss} after {done} patches, expected a finite one: lower the learning rate "
                    "or check the volume for extreme voxels; the best weights so far are kept."
                )
            smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
            done += recipe.batch
            seconds = time.monotonic() - start
            fraction = min(1.0, done / recipe.patches if recipe.patches else seconds / (60 * (recipe.minutes or 1)))
            # What decides the bits of a training with a patch budget is counted in patches, never in seconds.
            place, often = (done, 2000) if recipe.patches else (seconds, 10.0)
            due = place - checked >= min(often, place / max(fraction, 1e-9) / 20)
            progress = Progress(done, seconds, fraction, smooth, None)
            if due or fraction == 1:
                checked, progress = place, self._check(progress, held)
            try:
                yield progress
            except GeneratorExit:
                if progress.validation is None:
                    self._check(progress, held)  # what was learnt since the last check is not lost by stopping
                raise

    def model(self, source: Mapping[str, Any]) -> Model:
        """Return the model so far, with a record of the source (a mapping of JSON values) and of this training."""
        return Model(self.network, self.acquisition, self.normalisation, self.summary(), provenance(source))

    def summary(self) -> dict[str, Any]:
        """Return recipe, noise and losses as plain values, for the model file."""
        return {
            "recipe": asdict(self.recipe),
            "device": self.device.type,
            "noise": asdict(self.noise),
            "patches": self.history[-1].patches if self.history else 0,
            "seconds": round(self.history[-1].seconds, 1) if self.history else 0.0,
            "losses": [[p.patches, p.loss, p.validation] for p in self.history],
        }

    def _step(self, optimiser: torch.optim.Optimizer, batch: Pairs) -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    def _loss(self, batch: Pairs) -> Tensor:
        output = self._network(batch.image)
        return functional.l1_loss(output, batch.target) + self.recipe.edge_weight * edge_loss(output, batch.target)

    def _check(self, progress: Progress, held: Pairs) -> Progress:
        """Validate, and add the result to the history."""
        checked = replace(progress, validation=self._validate(held))
        self.history.append(checked)
        return checked

    def _validate(self, held: Pairs) -> float:
        with torch.no_grad():
            parts = [
                float(self._loss(Pairs(i, t)))
                for i, t in zip(torch.split(held.image, 16), torch.split(held.target, 16), strict=True)
            ]
        loss = sum(parts) / len(parts)
        if loss < self._best_loss:
            self._best_loss = loss
            self._best = {k: v.detach().cpu().clone() for k, v in self._network.state_dict().items()}
        return loss

    def _to_device(self, batch: Pairs) -> Pairs:
        return Pairs(batch.image.to(self.device), batch.target.to(self.device))


def _network_of(recipe: Recipe) -> Network:
    blocks = recipe.blocks if recipe.blocks is not None else {"valid": 7, "padded": 32}.get(recipe.network, 7)
    return build_network(recipe.network, recipe.filters, blocks, recipe.kernel)


def schedule(fraction: float, step: int, warm_up: int = 50) -> float:
    """Return the learning rate as a share of its peak: linear warm-up, then a cosine to 1 % at the end."""
    return min(1.0, (step + 1) / warm_up) * (0.505 + 0.495 * math.cos(math.pi * min(fraction, 1.0)))


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of Sobel edges of two batches (N, 1, H, W)."""
    kernel = torch.stack([SOBEL, SOBEL.T])[:, None].to(output)  # (2, 1, 3, 3)
    return functional.conv2d(output - target, kernel).abs().mean()
