"""Degrade a truth, train on the degraded volume, super-resolve it and score the result; resumable."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.evaluate.experiment import Experiment
from napari_cropeq.evidence.evaluate.score import score
from napari_cropeq.evidence.evaluate.test_set import joined
from napari_cropeq.evidence.evaluate.truth import Degraded, degrade
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS, Refinement
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.evidence.records import CELLS, FORMAT, Record, check_folder, read_record, write_json

__all__ = ["Evaluation", "EvaluationProgress"]

logger = logging.getLogger(__name__)


def _check(experiments: Sequence[Experiment]) -> None:
    """Raise one error for all truths for which an experiment cannot be computed."""
    errors: dict[str, Exception] = {}
    for experiment in experiments:
        name = experiment.truth.path or experiment.truth.name
        if name not in errors:
            try:
                experiment.check()
            except ValueError as error:
                errors[name] = error
    if errors:
        raise joined(errors, len({id(experiment.truth) for experiment in experiments}))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """State of an evaluation."""

    number: int  # of the experiment, from 0
    total: int  # number of experiments
    experiment: Experiment
    stage: str  # "degrading", "training", "super-resolving", "scoring", then "done"; "kept" if it was done before
    fraction: float  # of the stage
    detail: str = ""
    record: Record | None = None  # once the experiment is done or kept

    @property
    def share(self) -> float:
        """Share of all experiments that is done; each counts as one."""
        part = {"training": 0.9 * self.fraction, "super-resolving": 0.9 + 0.1 * self.fraction, "scoring": 1.0}
        within = 1.0 if self.record is not None else part.get(self.stage, 0.0)
        return (self.number + within) / self.total


Report = Callable[..., EvaluationProgress]
"""Makes the progress of one experiment from its stage and fraction."""

Restoration = Generator[EvaluationProgress, None, tuple[NDArray[np.float32], Record]]
"""Yields progress, and returns the image (z, y, x) and its part of the record."""


class Evaluation:
    """Runs experiments one after another and saves each in its own file.

    An experiment that is complete in the folder, with the same key, is not computed again. A stopped or killed
    evaluation therefore continues where it was.

    Parameters
    ----------
    experiments : sequence of Experiment
        In the order in which they are computed.
    folder : path
        Created if it does not exist. ``cells/`` holds a JSON record of each experiment, and its model beside it.

    Raises
    ------
    ArgumentError, ImageError
        If an experiment cannot be computed, before any work. With several truths, the message names the unusable ones.
    AccessError
        If the folder cannot be written.
    """

    def __init__(self, experiments: Sequence[Experiment], folder: str | Path) -> None:
        if not experiments:
            raise ArgumentError(
                "There is nothing to evaluate.", "Give at least one factor and one method.", setting="experiments"
            )
        _check(experiments)
        self.experiments = tuple(experiments)
        self.folder = check_folder(folder) / CELLS
        self._degraded: tuple[Any, Degraded] | None = None

    def run(self) -> Iterator[EvaluationProgress]:
        """Compute the missing experiments and yield progress; the last progress of each has its record."""
        for number, experiment in enumerate(self.experiments):
            report = functools.partial(EvaluationProgress, number, len(self.experiments), experiment)
            record = self.record(experiment)
            if record is not None:
                logger.info("%s: already computed", experiment.name)
                yield report("kept", 1.0, record=record)
                continue
            if self._path(experiment).exists():
                logger.warning("%s: the record is incomplete; the experiment is computed again", experiment.name)
            started = time.perf_counter()
            logger.info("%s: started (%d of %d)", experiment.name, number + 1, len(self.experiments))
            yield from self._compute(experiment, report)
            logger.info("%s: finished in %.1f s", experiment.name, time.perf_counter() - started)

    def record(self, experiment: Experiment) -> Record | None:
        """Return the record of an experiment, None if it is not finished."""
        found = read_record(self._path(experiment))
        return found if found is not None and found["key"] == json.loads(json.dumps(experiment.key)) else None

    def records(self) -> list[Record]:
        """Return the records of the finished experiments, in their order."""
        return [record for experiment in self.experiments if (record := self.record(experiment)) is not None]

    def _path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.name}.json"

    def _compute(self, experiment: Experiment, report: Report) -> Iterator[EvaluationProgress]:
        load = load_average()
        yield report("degrading", 0.0)
        degraded = self.degrade(experiment)
        restore = self._refine if experiment.trained else self._interpolate
        image, details = yield from restore(experiment, degraded, report)
        yield report("scoring", 0.0)
        scores = score(image, experiment.compared, experiment.border).as_json()
        scores["psnr"] = scores["psnr"] if np.isfinite(scores["psnr"]) else None  # JSON has no infinity
        record = {
            "format": FORMAT,
            "key": experiment.key,
            "truth": experiment.truth.describe(),
            "degraded": {"shape": list(degraded.source.shape), "sr_shape": list(degraded.sr_shape)}
            | {"dtype": "float32", "cut": degraded.cut},
            "scores": scores,
            **details,
            "machine": describe_machine(),
            "load": {"start": load, "end": load_average()},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self._path(experiment), record)
        yield report("done", 1.0, record=self.record(experiment))

    def degrade(self, experiment: Experiment) -> Degraded:
        """Degrade the truth; the degraded volume of the previous experiment is reused if it is the same."""
        same = (id(experiment.truth), experiment.axis, experiment.factor, experiment.fwhm)
        if self._degraded is None or self._degraded[0] != same:
            self._degraded = same, degrade(experiment.truth.voxels, experiment.axis, experiment.factor, experiment.fwhm)
        return self._degraded[1]

    def _interpolate(self, experiment: Experiment, degraded: Degraded, report: Report) -> Restoration:
        yield report("super-resolving", 0.0)
        start = time.perf_counter()
        image = INTERPOLATIONS[experiment.method](degraded)
        seconds = time.perf_counter() - start
        return image, {"training": None, "inference": _rate(image.size, seconds), "model": None}

    def _refine(self, experiment: Experiment, degraded: Degraded, report: Report) -> Restoration:
        training = Training(degraded.source, degraded.acquisition, experiment.config, experiment.device)
        for step in training.run():
            yield report("training", step.fraction, f"loss {step.loss:.4f}")
        facts = {"degraded": {k: experiment.key[k] for k in ("factor", "fwhm", "axis")} | {"cut": degraded.cut}}
        model = training.model(experiment.truth.describe() | facts)
        model.save(self.folder / f"{experiment.name}.safetensors")
        yield report("super-resolving", 0.0)
        refinement = Refinement(model, degraded, experiment.planes, experiment.device)
        start = time.perf_counter()
        for fraction in refinement.run():
            yield report("super-resolving", fraction)
        seconds = time.perf_counter() - start
        summary = training.summary()
        spent = training.history[-1].seconds
        details = {
            "training": {
                "seconds": round(spent, 2),
                "patches": summary["patches"],
                "patches_per_second": round(summary["patches"] / max(spent, 1e-9), 2),
                "validation": min(p.validation for p in training.history if p.validation is not None),
                "network": model.network.kind,
                "parameters": sum(p.numel() for p in model.network.parameters()),
                "device": summary["device"],
            },
            "inference": _rate(refinement.image.size, seconds) | {"tiling": refinement.tiling},
            "model": f"{experiment.name}.safetensors",
        }
        return refinement.image, details


def _rate(voxels: int, seconds: float) -> Record:
    return {"seconds": round(seconds, 3), "voxels_per_second": round(voxels / max(seconds, 1e-9))}
