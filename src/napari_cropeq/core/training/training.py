"""Self-supervised training as a generator that yields its progress."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from napari_cropeq.core.devices.exactness import device_for
from napari_cropeq.core.devices.out_of_memory import give_memory_back, is_out_of_memory
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.host import exact_convolutions, freed_memory_kept
from napari_cropeq.core.model import Model, State, provenance
from napari_cropeq.core.network import ErrorTail, Network, PaddedNetwork, build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.budget import Budget
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.device_patches import DevicePatches
from napari_cropeq.core.training.learn_error import LEAST_PATCHES, TOO_FEW, learn_error
from napari_cropeq.core.training.loss import loss_of
from napari_cropeq.core.training.parts import Parts
from napari_cropeq.core.training.patches import PatchSampler, TrainingBatch
from napari_cropeq.core.training.plane_pool import Volume
from napari_cropeq.core.training.progress import Progress, RunningMean, Thumbnail, hardly_learnt
from napari_cropeq.core.training.threads import ThreadChoice
from napari_cropeq.core.training.weights import LearntWeights
from napari_cropeq.errors import ArgumentError, DivergedError, MismatchError, OutOfMemoryError

__all__ = ["Progress", "Thumbnail", "Training", "TrainingConfig"]

logger = logging.getLogger(__name__)

LEAST_GAIN = 0.5
"""Improvement over interpolation on held-out patches, dB; with less, a network has hardly learnt."""

GPU_BATCH = 32
"""Least number of patches in a step of a training for a time on a GPU."""

MIN_TARGET = 3
"""Smallest target with an edge, px."""


class Training:
    """Trains a network on a source; iterate :meth:`run`, and get :attr:`network` afterwards or at any time.

    The attribute ``gain`` has how much better than interpolation the best weights so far are on held-out patches, dB.
    Their targets are as noisy as the source, so it is less than the improvement over a clean truth. The attribute
    ``interpolation_loss`` has the loss of interpolation on the same patches.

    Parameters
    ----------
    source : array-like (z, y, x), or a sequence of channels, each a sequence of such volumes
        The acquired volume, or the time points of each channel.
    acquisition : Acquisition
        Its grid and slice profile.
    config : TrainingConfig
        Budget and settings. With a patch budget the same seed gives the same bits on the CPU.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.
    normalisations : sequence of Normalisation, optional
        Intensity scale of each channel; measured on its first time point by default.
    start : Model, optional
        Continue from its weights and, if it has one, the state of its optimiser.
    resume : bool
        Complete the interrupted training of ``start``: the budget that it has used counts.

    Raises
    ------
    ImageError
        If the source cannot be trained on.
    ArgumentError
        If a setting is not possible.
    MismatchError
        If ``start`` has another network or factor.
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
        if resume and start is not None:
            config = config.resuming(start.training.get("recipe") or {})
        self.acquisition, self.config = acquisition, config
        channels = source if isinstance(source, Sequence) else [[source]]
        subpositions = subpositions_for(config.network, acquisition.factor)
        with torch.random.fork_rng(devices=[]):  # do not change the user's random numbers
            torch.manual_seed(config.seed)
            network = build_network(config.network, config.filters, config.depth, config.kernel, subpositions)
        self.device = device_for(network, device)
        if network.shrink and config.patch - network.shrink < MIN_TARGET:
            raise ArgumentError(
                f"A patch of {config.patch} px is too small for a network that crops {network.shrink} px; it needs "
                f"{network.shrink + MIN_TARGET} px.",
                "Choose a larger patch or fewer blocks.",
                setting="patch",
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
        self._parts = Parts(batch_size(config, self.device), self.device)
        self._sampler = PatchSampler(volumes, acquisition, network, config, self._budget.patches)
        self._on_device = DevicePatches.of(self._sampler, self.device, (config.seed, self._budget.patches))
        self._held_out = self._sampler.held_out(config.validation).to(self.device)
        interpolated, target = self._held_out.interpolated(network), self._held_out.target
        self._interpolated = max(float((interpolated - target).square().sum()), 1e-30)
        self.interpolation_loss = float(loss_of(interpolated, target, self._held_out.noise, config))
        self.gain = 0.0
        self._error_tail: ErrorTail | None = None
        self.history: list[Progress] = _history(start) if start is not None and resume else []

    @property
    def network(self) -> Network:
        """The network with the lowest validation loss so far, on the CPU."""
        return self._weights.frozen(self._weights.best)

    def run(self) -> Generator[Progress, None, None]:
        """Train until the budget is spent or the loss has converged, yielding after every step.

        Raises
        ------
        DivergedError
            If the loss becomes NaN or infinite; the best weights so far are kept.
        OutOfMemoryError
            If memory does not suffice for a single patch.
        """
        try:
            with freed_memory_kept():
                yield from self._run()
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.info("Out of memory: %s", error)
        finally:
            self._sampler.close()
            give_memory_back(self.device)
        # Not raised from the first error, whose traceback would keep the tensors in memory.
        raise OutOfMemoryError(
            "There is too little memory to train, even with a single patch at a time.",
            "Close other programs, or choose a smaller patch or fewer filters.",
            setting="memory",
        )

    def _run(self) -> Iterator[Progress]:
        config, weights, budget = self.config, self._weights, self._budget
        started = time.monotonic()
        self._log_start()
        weights.network.train()
        # Validate before the first step: the result is never worse than the interpolation or the model to continue.
        if weights.steps:
            self._validate(weights.best)
        self._validate(weights.current)
        budget.start()
        # Bits depend on the number of threads: a patch budget, with which equal seeds give equal bits, leaves it alone.
        threads = ThreadChoice(torch.get_num_threads()) if config.patches is None else None
        mean, size = RunningMean(), batch_size(config, self.device)
        while budget.fraction < 1:
            weights.set_rate(config.rate * schedule(config.schedule, budget.fraction, budget.steps, config.warm_up))
            patches = self._sampler if self._on_device is None else self._on_device
            batch = patches.draw(size).to(self.device)
            loss = self._step(batch) if threads is None else threads.run(self._step, batch)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"The loss is {loss} after {budget.patches} patches; the best weights so far are kept.",
                    "Lower the learning rate or check the volume for extreme voxels.",
                    setting="rate",
                )
            budget.spend(size)
            progress = Progress(
                budget.patches,
                budget.seconds,
                budget.fraction,
                mean.add(loss),
                None,
                budget.rate,
                self._parts.note,
                budget.seconds_left,
                mean.settled,
                self.gain if self.history else math.nan,
            )
            if budget.is_validation_due:
                progress = self._check(progress)
            try:
                yield progress
            except GeneratorExit:
                if progress.validation is None:
                    self._check(progress)  # do not lose the progress since the last validation
                raise
        logger.info(
            "Training ended after %d patches and %.1f s: validation loss %.5f",
            budget.patches,
            time.monotonic() - started,
            weights.best_loss,
        )
        if self.history and budget.fraction == 1:
            yield from self._learn_error(self.history[-1])

    def _learn_error(self, last: Progress) -> Iterator[Progress]:
        """Learn the expected error of the best weights, if the network has seen enough patches to have one."""
        started = time.monotonic()
        if not self._learns_error or last.patches < LEAST_PATCHES:
            return
        try:
            steps = learn_error(self.network.to(self.device), self._sampler, last.patches // 4)
            while True:
                with exact_convolutions(self.device):
                    next(steps)
                yield replace(last, validation=None, note="Learning the expected error.")
        except StopIteration as end:
            self._error_tail = end.value
            logger.info("Learnt the expected error in %.1f s", time.monotonic() - started)
        except (RuntimeError, MemoryError) as error:  # the training itself is complete
            if not is_out_of_memory(error):
                raise
            logger.warning("There is too little memory to learn the expected error; the model has none")
        yield replace(last, validation=None)

    def _log_start(self) -> None:
        config, network, spent = self.config, self._weights.network, self._budget.patches
        budget = f"{config.minutes:g} minutes" if config.patches is None else f"{config.patches} patches"
        logger.info(
            "Training network %s (%d filters, %d blocks) on %s for %s, %d patches done",
            network.kind,
            network.filters,
            network.blocks,
            self.device,
            budget,
            spent,
        )

    def model(self, source: Mapping[str, Any]) -> Model:
        """Return the model so far, with a record of the source (a mapping of JSON values) and of this training.

        A training can continue from it: see ``start``.
        """
        return Model(
            self.network,
            self.acquisition,
            self.normalisations,
            self.summary(),
            provenance(source),
            self._weights.state(self._budget.patches, self._budget.seconds),
            self._correction,
            self._error_tail,
        )

    def snapshot(self, source: Mapping[str, Any]) -> Model:
        """Return a model with the current weights, for a preview; a training cannot continue from it."""
        network = self._weights.frozen(self._weights.current)
        about = self.summary(), provenance(source)
        return Model(network, self.acquisition, self.normalisations, *about, correction=self._correction)

    @property
    def _learns_error(self) -> bool:
        """Whether a training on enough patches ends with the expected error of its network."""
        return not isinstance(self._weights.network, PaddedNetwork)

    @property
    def _correction(self) -> float:
        """Width of the filter that keeps intensities; none for the padded baseline, whose tiles have seams."""
        return self.config.correction if self._weights.network.shrink else 0.0

    def summary(self) -> dict[str, Any]:
        """Return settings, noise and losses as plain values, for the model file."""
        transfer = [measured.record() for _, measured in sorted(self._sampler.transfer.items())]
        return {
            "recipe": asdict(self.config),
            "device": self.device.type,
            "noise": [asdict(noise) for _, noise in sorted(self._sampler.noise.items())],
            **({"photon_transfer": transfer} if transfer else {}),
            "patches": self._budget.patches,
            "seconds": round(self._budget.seconds, 1),
            "gain": round(self.gain, 2),
            "losses": [[p.patches, p.seconds, p.loss, p.validation] for p in self.history],
        }

    def thumbnail(self) -> Thumbnail:
        """Return a validation patch with the output of the current weights; call it between two steps.

        It is always the patch with the most contrast, since many others show only background.
        """
        network, contrast = self._weights.network, self._held_out.target.flatten(1).var(dim=1)
        part = list(self._held_out.split(1))[int(contrast.argmax())]
        with torch.no_grad():
            output = part.output(network)
        images = part.interpolated(network), output, part.target
        one, two, three = (x[0, 0].float().cpu().numpy().copy() for x in images)
        return Thumbnail(one, two, three)

    def _step(self, batch: TrainingBatch) -> float:
        """Make one step and return its loss."""

        def accumulate(part: TrainingBatch) -> float:
            output = part.output(self._weights.network)
            loss = loss_of(output, part.target, part.noise, self.config) * (len(part) / len(batch))
            loss.backward()
            return float(loss.detach())

        with exact_convolutions(self.device):
            loss = self._parts.sum(batch, accumulate, self._weights.forget_gradients)
        self._weights.step()
        return loss

    def _check(self, progress: Progress) -> Progress:
        """Validate, add the result to the history, and end a training that does not improve any more."""
        loss = self._validate(self._weights.current)
        logger.debug("Validation loss %.5f after %d patches, %.1f s", loss, progress.patches, progress.seconds)
        checked = replace(progress, validation=loss, gain=self.gain)
        if self._budget.converges(loss):
            note = f"Converged: no improvement over {self._budget.validations_waited} validations."
            checked = replace(checked, fraction=1.0, note=note, seconds_left=0.0)
        if checked.fraction == 1:
            learnt = "" if self.gain >= LEAST_GAIN else hardly_learnt(self.gain)
            few = TOO_FEW if progress.patches < LEAST_PATCHES and self._learns_error else ""
            doubts = dict.fromkeys(transfer.doubt for _, transfer in sorted(self._sampler.transfer.items()))
            checked = replace(checked, note=" ".join(filter(None, (checked.note, learnt, few, *doubts))))
        self.history.append(checked)
        return checked

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        """Return the loss of the held-out patches; keep the weights if they are the best so far."""
        network, squares = self._weights.network_with(weights), list[float]()

        def prepare() -> None:
            self._weights.forget_gradients()
            squares.clear()

        def measure(part: TrainingBatch) -> float:
            output = part.output(network)
            squares.append(float((output - part.target).square().sum()))
            return float(loss_of(output, part.target, part.noise, self.config)) * len(part)

        started = time.monotonic()
        with torch.no_grad(), exact_convolutions(self.device):
            loss = self._parts.sum(self._held_out, measure, prepare) / len(self._held_out)
        self._budget.validated(time.monotonic() - started)
        if self._weights.keep_if_best(weights, loss):
            self.gain = 10 * math.log10(self._interpolated / max(sum(squares), 1e-30))
        return loss


def batch_size(config: TrainingConfig, device: torch.device) -> int:
    """Return the patches in each step: more on a GPU, which is not busy with few, unless their number is the budget.

    Steps are then as many as it makes in the time, each along a gradient with less noise.
    """
    return config.batch if device.type == "cpu" or config.patches is not None else max(config.batch, GPU_BATCH)


def _check_start(start: Model, network: Network, acquisition: Acquisition) -> State | None:
    """Return the state of ``start`` if its training can continue with ``network``."""
    start.check_fits(acquisition)
    own, other = ((n.kind, n.filters, n.blocks, n.kernel) for n in (start.network, network))
    if own != other:
        raise MismatchError(
            f"The model to continue has {_in_words(own)}, but the settings are {_in_words(other)}.",
            "Use the model's settings, or train from scratch.",
            setting="start",
        )
    return start.state


def _in_words(architecture: tuple[str, int, int, int]) -> str:
    kind, filters, blocks, kernel = architecture
    return f"network {kind!r} with {filters} filters, {blocks} blocks and kernels of {kernel} px"


def _history(start: Model) -> list[Progress]:
    """Return the progress that is recorded in a model."""
    losses = start.training.get("losses", [])
    return [Progress(int(p), float(s), 0.0, float(loss), float(v)) for p, s, loss, v in losses]


def schedule(kind: str, fraction: float, step: int, warm_up: int = 50) -> float:
    """Return the learning rate as a share of its peak: linear warm-up, then constant or a cosine to 1 % at the end."""
    rise = min(1.0, (step + 1) / warm_up)
    return rise if kind == "constant" else rise * (0.505 + 0.495 * math.cos(math.pi * min(fraction, 1.0)))
