"""Self-supervised training as a generator that yields its progress."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cropeq.core.allocator import give_freed_memory_back, is_out_of_memory, keep_freed_memory
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model, State, provenance
from napari_cropeq.core.network import Network, build_network, crop, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.config import Recipe
from napari_cropeq.core.training.muon import Muon
from napari_cropeq.core.training.patches import Pairs, PatchSampler
from napari_cropeq.core.training.plane_pool import Volume
from napari_cropeq.core.training.progress import Progress, Thumbnail

__all__ = ["Progress", "Recipe", "Thumbnail", "Training", "edge_loss"]

MIN_TARGET = 3
"""Smallest target that has an edge, px."""

CHECK_SECONDS = 10.0
SOBEL = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8


class Training:
    """Trains a network on a source; iterate :meth:`run`, then (or at any time) take :attr:`network`.

    Parameters
    ----------
    source : array-like (z, y, x), or a sequence of channels, each a sequence of such volumes
        The acquired volume, or the time points of each channel to train on.
    acquisition : Acquisition
        Its grid and slice profile.
    recipe : Recipe
        Budget and settings. With a patch budget the same seed gives the same bits on the CPU.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    normalisations : sequence of Normalisation, optional
        Intensity scale of each channel; measured on its first time point by default.
    start : Model, optional
        Go on from its weights and, where it has one, the state of its optimiser.
    resume : bool
        Whether what ``start`` has spent counts towards the budget: an interrupted training is then completed.

    Raises
    ------
    ValueError
        If the source cannot be trained on, or ``start`` has another network or factor.
    """

    def __init__(
        self,
        source: ArrayLike | Sequence[Sequence[ArrayLike]],
        acquisition: Acquisition,
        recipe: Recipe,
        device: str = "auto",
        normalisations: Sequence[Normalisation] | None = None,
        start: Model | None = None,
        resume: bool = False,
    ) -> None:
        keep_freed_memory()
        self.acquisition, self.recipe = acquisition, recipe
        self.device = choose_device(device)
        channels = source if isinstance(source, Sequence) else [[source]]
        subpositions = subpositions_for(recipe.network, acquisition.factor)
        with torch.random.fork_rng(devices=[]):  # the user's random numbers stay theirs
            torch.manual_seed(recipe.seed)
            network = build_network(recipe.network, recipe.filters, recipe.depth, recipe.kernel, subpositions)
        if network.shrink and recipe.patch - network.shrink < MIN_TARGET:
            raise ValueError(
                f"Got a patch of {recipe.patch} px and a network that crops {network.shrink}, expected at least "
                f"{network.shrink + MIN_TARGET}: choose a larger patch or fewer blocks."
            )
        self._state = None if start is None else _check_start(start, network, acquisition)
        if start is not None:
            last = {} if self._state is None else self._state.group("last")
            network.load_state_dict(last or start.network.state_dict())
        self.normalisations = list(normalisations or (Normalisation.measure(c[0], recipe.seed) for c in channels))
        volumes = [
            Volume(voxels, scale, number)
            for number, (times, scale) in enumerate(zip(channels, self.normalisations, strict=True))
            for voxels in times
        ]
        done = 0 if self._state is None else self._state.patches
        self._sampler = PatchSampler(volumes, acquisition, network, recipe, done)
        self.noise = self._sampler.noise
        self._network = network.to(self.device)
        self._held = self._sampler.held_out(recipe.validation).to(self.device)
        self._part = recipe.batch
        self._note = ""
        self._resume = resume and self._state is not None
        self.history: list[Progress] = _history(start) if start is not None and self._resume else []
        self._best = copy.deepcopy(network.state_dict() if start is None else start.network.state_dict())
        self._best_loss = math.inf
        self._average: dict[str, Tensor] = {} if self._state is None else self._state.group("average")
        self._optimiser = self._make_optimiser()
        self._steps = 0 if self._state is None else self._state.steps
        self._patches, self._seconds = (
            (self._state.patches, self._state.seconds) if self._state is not None else (0, 0.0)
        )
        self._epochs_waited, self._wanted_loss = 0, math.inf

    @property
    def network(self) -> Network:
        """The weights of the lowest validation loss so far, on the CPU."""
        best = copy.deepcopy(self._network).cpu()
        best.load_state_dict(self._best)
        return best.eval().requires_grad_(False)

    def run(self) -> Generator[Progress, None, None]:
        """Train until the budget is spent or the loss has converged, yielding after every step.

        Raises
        ------
        ArithmeticError
            If the loss becomes NaN or infinite; the best weights so far are kept.
        MemoryError
            If memory does not suffice for a single patch.
        """
        try:
            yield from self._run()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError("a single patch does not fit") from error
            raise
        finally:
            self._sampler.close()

    def _run(self) -> Iterator[Progress]:
        recipe = self.recipe
        self._network.train()
        # The untrained network is the interpolation: what is kept is never worse, nor than what is gone on from.
        if self._state is not None:
            self._validate(self._best)
        self._validate(self._weights)
        # A budget counts from here, unless an interrupted training is completed.
        patches0, seconds0 = (0, 0.0) if self._resume else (self._patches, self._seconds)
        before, begun = self._seconds, time.monotonic() - self._seconds
        smooth, fraction, steps = math.nan, 0.0, 0
        checked = (self._patches, self._seconds)
        while fraction < 1:
            self._set_rate(fraction, steps)
            loss = self._step(self._sampler.draw(recipe.batch).to(self.device))
            if not math.isfinite(loss):
                raise ArithmeticError(
                    f"Got a loss of {loss} after {self._patches} patches, expected a finite one: lower the learning "
                    "rate or check the volume for extreme voxels; the best weights so far are kept."
                )
            smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
            steps += 1
            self._patches += recipe.batch
            self._seconds = time.monotonic() - begun
            spent = (self._patches - patches0, self._seconds - seconds0)
            fraction = min(
                1.0, spent[0] / recipe.patches if recipe.patches else spent[1] / (60 * (recipe.minutes or 1))
            )
            rate = recipe.batch * steps / max(self._seconds - before, 1e-9)
            left = spent[1] * (1 / fraction - 1) if fraction > 0 else math.inf
            progress = Progress(self._patches, self._seconds, fraction, smooth, None, rate, self._note, left)
            if self._is_due(checked, spent, fraction) or fraction == 1:
                checked = (self._patches, self._seconds)
                progress = self._check(progress)
                fraction = progress.fraction
            try:
                yield progress
            except GeneratorExit:
                if progress.validation is None:
                    self._check(progress)  # what was learnt since the last check is not lost by stopping
                raise

    def _is_due(self, checked: tuple[int, float], spent: tuple[int, float], fraction: float) -> bool:
        """Return whether it is time to validate: after an epoch, and at least 20 times in all."""
        # What decides the bits of a training with a patch budget is counted in patches, never in seconds.
        patches = self._patches - checked[0]
        if self.recipe.patches:
            return patches >= min(self.recipe.epoch, self.recipe.patches / 20)
        return self._seconds - checked[1] >= min(CHECK_SECONDS, spent[1] / max(fraction, 1e-9) / 20)

    def model(self, source: Mapping[str, Any]) -> Model:
        """Return the model so far, with a record of the source (a mapping of JSON values) and of this training.

        It can be gone on from: see ``start``.
        """
        return Model(
            self.network,
            self.acquisition,
            self.normalisations,
            self.summary(),
            provenance(source),
            self._take_state(),
        )

    def glimpse(self, source: Mapping[str, Any]) -> Model:
        """Return a model with the weights of this moment, to be looked at; it cannot be gone on from."""
        network = copy.deepcopy(self._network).cpu()
        network.load_state_dict(self._weights)
        network.eval().requires_grad_(False)
        return Model(network, self.acquisition, self.normalisations, self.summary(), provenance(source))

    def summary(self) -> dict[str, Any]:
        """Return recipe, noise and losses as plain values, for the model file."""
        return {
            "recipe": asdict(self.recipe),
            "device": self.device.type,
            "noise": [asdict(noise) for _, noise in sorted(self.noise.items())],
            "patches": self._patches,
            "seconds": round(self._seconds, 1),
            "losses": [[p.patches, p.seconds, p.loss, p.validation] for p in self.history],
        }

    def thumbnail(self) -> Thumbnail:
        """Return a validation patch as the weights of this moment see it; to be called between two steps.

        It is always the same: the one of most contrast, since many others show nothing but background.
        """
        contrast = self._held.target.flatten(1).var(dim=1)
        part = list(self._held.split(1))[int(contrast.argmax())]
        with torch.no_grad():
            output = part.output(self._network)
        base = part.base if part.base is not None else crop(part.image, self._network.axial_halo, self._network.halo)
        one, two, three = (x[0, 0].float().cpu().numpy().copy() for x in (base, output, part.target))
        return Thumbnail(one, two, three)

    def _make_optimiser(self) -> torch.optim.Optimizer | Muon:
        recipe, network = self.recipe, self._network
        optimiser: torch.optim.Optimizer | Muon = (
            Muon(network, recipe.rate, recipe.decay)
            if recipe.optimiser == "muon"
            else torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
        )
        if self._state is not None:
            moments = {moment: self._state.group(moment) for moment in ("exp_avg", "exp_avg_sq")}
            for name, weight in network.named_parameters():
                kept = {k: v[name].to(weight).clone() for k, v in moments.items() if name in v}
                if kept:
                    optimiser.state[weight] = {"step": torch.tensor(float(self._state.steps)), **kept}
        return optimiser

    def _set_rate(self, fraction: float, step: int) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.rate * schedule(self.recipe.schedule, fraction, step, self.recipe.warm_up)

    def _step(self, batch: Pairs) -> float:
        """Make one step and return its loss."""

        def accumulate(part: Pairs) -> float:
            loss = self._loss(part) * (len(part) / len(batch))
            loss.backward()
            return float(loss.detach())

        loss = self._in_parts(batch, accumulate)
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self._steps += 1
        self._average_weights()
        return loss

    def _in_parts(self, batch: Pairs, work: Callable[[Pairs], float]) -> float:
        """Return the sum of ``work`` over the parts of a batch, halving them while memory does not suffice."""
        while True:
            try:
                self._optimiser.zero_grad(set_to_none=True)
                return sum(work(part) for part in batch.split(self._part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if self._part == 1:
                raise MemoryError("a single patch does not fit")
            self._part = -(-self._part // 2)
            self._note = f"Out of memory: {self._part} patches at a time, the result is the same."
            give_freed_memory_back()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _average_weights(self) -> None:
        """Update the running average; its first steps count as a plain mean."""
        if not self.recipe.average:
            return
        weights = self._network.state_dict()
        if not self._average:
            self._average = {k: v.clone() for k, v in weights.items()}
            return
        keep = min(self.recipe.average, (self._steps + 1) / (self._steps + 10))
        for name, mean in self._average.items():
            mean.lerp_(weights[name].to(mean.device), 1 - keep)

    def _loss(self, batch: Pairs, network: Network | None = None) -> Tensor:
        output = batch.output(network or self._network)
        return functional.l1_loss(output, batch.target) + self.recipe.edge_weight * edge_loss(output, batch.target)

    def _check(self, progress: Progress) -> Progress:
        """Validate, add the result to the history, and end a training that does not improve any more."""
        loss = self._validate(self._weights)
        checked = replace(progress, validation=loss)
        if loss < self._wanted_loss:
            self._wanted_loss, self._epochs_waited = loss * (1 - self.recipe.improvement), 0
        else:
            self._epochs_waited += 1
        if self.recipe.patience and self._epochs_waited >= self.recipe.patience and progress.fraction < 1:
            self._note = f"Converged: no improvement over {self._epochs_waited} validations."
            checked = replace(checked, fraction=1.0, note=self._note, seconds_left=0.0)
        self.history.append(checked)
        return checked

    @property
    def _weights(self) -> dict[str, Tensor]:
        """The weights of this moment: their average where there is one."""
        return self._average or self._network.state_dict()

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        """Return the loss of the held-out patches; weights better than all before are kept."""
        network = self._network
        if weights is self._average or weights is self._best:  # not the network's own
            network = copy.deepcopy(network)
            network.load_state_dict(weights)
        with torch.no_grad():
            loss = self._in_parts(self._held, lambda part: float(self._loss(part, network)) * len(part))
        loss /= len(self._held)
        if loss < self._best_loss:
            self._best_loss = loss
            self._best = {k: v.detach().cpu().clone() for k, v in weights.items()}
        return loss

    def _take_state(self) -> State | None:
        """Return where the training stands; None where nothing can be gone on from, since a loss was no number."""
        tensors = {f"last/{k}": v.detach().cpu().clone() for k, v in self._network.state_dict().items()}
        tensors |= {f"average/{k}": v.detach().cpu().clone() for k, v in self._average.items()}
        for name, weight in self._network.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in self._optimiser.state.get(weight, {}):
                    tensors[f"{moment}/{name}"] = self._optimiser.state[weight][moment].detach().cpu().clone()
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            return None
        return State(tensors, self._steps, self._patches, self._seconds)


def _check_start(start: Model, network: Network, acquisition: Acquisition) -> State | None:
    """Return the state of ``start`` if its training can go on with ``network``."""
    start.check_fits(acquisition)
    own, other = ((n.kind, n.filters, n.blocks, n.kernel) for n in (start.network, network))
    if own != other:
        raise ValueError(
            f"Got a model of {_in_words(own)}, expected {_in_words(other)} as the recipe says: "
            "choose the model's, or start anew."
        )
    return start.state


def _in_words(architecture: tuple[str, int, int, int]) -> str:
    kind, filters, blocks, kernel = architecture
    return f"network {kind!r} with {filters} filters, {blocks} blocks and kernels of {kernel} px"


def _history(start: Model) -> list[Progress]:
    """Return what a model tells of its training before."""
    losses = start.training.get("losses", [])
    return [Progress(int(p), float(s), 0.0, float(loss), float(v)) for p, s, loss, v in losses]


def schedule(kind: str, fraction: float, step: int, warm_up: int = 50) -> float:
    """Return the learning rate as a share of its peak: linear warm-up, then constant or a cosine to 1 % at the end."""
    rise = min(1.0, (step + 1) / warm_up)
    return rise if kind == "constant" else rise * (0.505 + 0.495 * math.cos(math.pi * min(fraction, 1.0)))


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of Sobel edges of two batches (N, 1, H, W)."""
    kernel = torch.stack([SOBEL, SOBEL.T])[:, None].to(output)  # (2, 1, 3, 3)
    return functional.conv2d(output - target, kernel).abs().mean()
