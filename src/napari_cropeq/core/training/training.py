"""Self-supervised training as a generator that yields its progress."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.host import freed_memory_kept, give_freed_memory_back
from napari_cropeq.core.model import Model, State, provenance
from napari_cropeq.core.network import Network, build_network, crop, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.out_of_memory import is_out_of_memory
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.budget import Budget
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.parts import Parts
from napari_cropeq.core.training.patches import PatchSampler, TrainingBatch
from napari_cropeq.core.training.plane_pool import Volume
from napari_cropeq.core.training.progress import Progress, Thumbnail
from napari_cropeq.core.training.weights import LearntWeights

__all__ = ["Progress", "Thumbnail", "Training", "TrainingConfig", "edge_loss"]

MIN_TARGET = 3
"""Smallest target that has an edge, px."""

SOBEL = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8


class Training:
    """Trains a network on a source; iterate :meth:`run`, then (or at any time) take :attr:`network`.

    Parameters
    ----------
    source : array-like (z, y, x), or a sequence of channels, each a sequence of such volumes
        The acquired volume, or the time points of each channel to train on.
    acquisition : Acquisition
        Its grid and slice profile.
    config : TrainingConfig
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
        config: TrainingConfig,
        device: str = "auto",
        normalisations: Sequence[Normalisation] | None = None,
        start: Model | None = None,
        resume: bool = False,
    ) -> None:
        self.acquisition, self.config = acquisition, config
        self.device = choose_device(device)
        channels = source if isinstance(source, Sequence) else [[source]]
        subpositions = subpositions_for(config.network, acquisition.factor)
        with torch.random.fork_rng(devices=[]):  # the user's random numbers stay theirs
            torch.manual_seed(config.seed)
            network = build_network(config.network, config.filters, config.depth, config.kernel, subpositions)
        if network.shrink and config.patch - network.shrink < MIN_TARGET:
            raise ValueError(
                f"Got a patch of {config.patch} px and a network that crops {network.shrink}, expected at least "
                f"{network.shrink + MIN_TARGET}: choose a larger patch or fewer blocks."
            )
        state = None if start is None else _check_start(start, network, acquisition)
        resume = resume and state is not None
        self.normalisations = list(normalisations or (Normalisation.measure(c[0], config.seed) for c in channels))
        volumes = [
            Volume(voxels, scale, number)
            for number, (times, scale) in enumerate(zip(channels, self.normalisations, strict=True))
            for voxels in times
        ]
        self._weights = LearntWeights(network.to(self.device), config, start)
        self._budget = Budget(config, state, resume)
        self._parts = Parts(config.batch, self.device)
        self._sampler = PatchSampler(volumes, acquisition, network, config, self._budget.patches)
        self._held_out = self._sampler.held_out(config.validation).to(self.device)
        self.history: list[Progress] = _history(start) if start is not None and resume else []

    @property
    def network(self) -> Network:
        """The weights of the lowest validation loss so far, on the CPU."""
        return self._weights.frozen(self._weights.best)

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
            with freed_memory_kept():
                yield from self._run()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError("a single patch does not fit") from error
            raise
        finally:
            self._sampler.close()
            give_freed_memory_back()

    def _run(self) -> Iterator[Progress]:
        config, weights, budget = self.config, self._weights, self._budget
        weights.network.train()
        # The untrained network is the interpolation: what is kept is never worse, nor than what is gone on from.
        if weights.steps:
            self._validate(weights.best)
        self._validate(weights.current)
        budget.start()
        smooth = math.nan
        while budget.fraction < 1:
            weights.set_rate(config.rate * schedule(config.schedule, budget.fraction, budget.steps, config.warm_up))
            loss = self._step(self._sampler.draw(config.batch).to(self.device))
            if not math.isfinite(loss):
                raise ArithmeticError(
                    f"Got a loss of {loss} after {budget.patches} patches, expected a finite one: lower the learning "
                    "rate or check the volume for extreme voxels; the best weights so far are kept."
                )
            smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
            budget.spend(config.batch)
            progress = Progress(
                budget.patches,
                budget.seconds,
                budget.fraction,
                smooth,
                None,
                budget.rate,
                self._parts.note,
                budget.seconds_left,
            )
            if budget.is_validation_due:
                progress = self._check(progress)
            try:
                yield progress
            except GeneratorExit:
                if progress.validation is None:
                    self._check(progress)  # what was learnt since the last check is not lost by stopping
                raise

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
            self._weights.state(self._budget.patches, self._budget.seconds),
        )

    def snapshot(self, source: Mapping[str, Any]) -> Model:
        """Return a model with the weights of this moment, to be looked at; it cannot be gone on from."""
        network = self._weights.frozen(self._weights.current)
        return Model(network, self.acquisition, self.normalisations, self.summary(), provenance(source))

    def summary(self) -> dict[str, Any]:
        """Return recipe, noise and losses as plain values, for the model file."""
        return {
            "recipe": asdict(self.config),
            "device": self.device.type,
            "noise": [asdict(noise) for _, noise in sorted(self._sampler.noise.items())],
            "patches": self._budget.patches,
            "seconds": round(self._budget.seconds, 1),
            "losses": [[p.patches, p.seconds, p.loss, p.validation] for p in self.history],
        }

    def thumbnail(self) -> Thumbnail:
        """Return a validation patch as the weights of this moment see it; to be called between two steps.

        It is always the same: the one of most contrast, since many others show nothing but background.
        """
        network, contrast = self._weights.network, self._held_out.target.flatten(1).var(dim=1)
        part = list(self._held_out.split(1))[int(contrast.argmax())]
        with torch.no_grad():
            output = part.output(network)
        base = part.base if part.base is not None else crop(part.image, network.axial_halo, network.halo)
        one, two, three = (x[0, 0].float().cpu().numpy().copy() for x in (base, output, part.target))
        return Thumbnail(one, two, three)

    def _step(self, batch: TrainingBatch) -> float:
        """Make one step and return its loss."""

        def accumulate(part: TrainingBatch) -> float:
            loss = self._loss(part, self._weights.network) * (len(part) / len(batch))
            loss.backward()
            return float(loss.detach())

        loss = self._parts.sum(batch, accumulate, self._weights.forget_gradients)
        self._weights.step()
        return loss

    def _loss(self, batch: TrainingBatch, network: Network) -> Tensor:
        output = batch.output(network)
        return functional.l1_loss(output, batch.target) + self.config.edge_weight * edge_loss(output, batch.target)

    def _check(self, progress: Progress) -> Progress:
        """Validate, add the result to the history, and end a training that does not improve any more."""
        loss = self._validate(self._weights.current)
        checked = replace(progress, validation=loss)
        if self._budget.converges(loss):
            note = f"Converged: no improvement over {self._budget.validations_waited} validations."
            checked = replace(checked, fraction=1.0, note=note, seconds_left=0.0)
        self.history.append(checked)
        return checked

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        """Return the loss of the held-out patches; weights better than all before are kept."""
        network = self._weights.network_with(weights)
        with torch.no_grad():
            loss = self._parts.sum(
                self._held_out,
                lambda part: float(self._loss(part, network)) * len(part),
                self._weights.forget_gradients,
            )
        loss /= len(self._held_out)
        self._weights.keep_if_best(weights, loss)
        return loss


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
