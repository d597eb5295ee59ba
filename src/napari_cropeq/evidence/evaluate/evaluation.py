"""Degrade a truth, train on what is left, super-resolve it, and score the result: cell by cell, resumable."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.core.training.training import Training
from napari_cropeq.evidence.evaluate.experiment import Experiment, check_method
from napari_cropeq.evidence.evaluate.score import score
from napari_cropeq.evidence.evaluate.test_set import joined
from napari_cropeq.evidence.evaluate.truth import Degraded, degrade
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS, Refinement
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.evidence.records import CELLS, FORMAT, Record, check_folder, read_record, write_json

__all__ = ["Evaluation", "EvaluationProgress"]


def _check(experiments: Sequence[Experiment]) -> None:
    refusals: dict[str, str] = {}
    for experiment in experiments:
        check_method(experiment.method)
        who = experiment.truth.path or experiment.truth.name
        if who not in refusals:
            try:
                experiment.check()
            except ValueError as error:
                refusals[who] = str(error)
    if refusals:
        raise ValueError(joined(refusals, len({id(experiment.truth) for experiment in experiments})))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Where an evaluation stands."""

    number: int  # of the cell, from 0
    total: int  # cells
    experiment: Experiment
    stage: str  # "degrading", "training", "super-resolving", "scoring", then "done"; "kept" where it was there
    fraction: float  # of the stage
    detail: str = ""
    record: Record | None = None  # once the cell is done or kept

    @property
    def share(self) -> float:
        """The share of all cells that is done, each counted as one."""
        part = {"training": 0.9 * self.fraction, "super-resolving": 0.9 + 0.1 * self.fraction, "scoring": 1.0}
        within = 1.0 if self.record is not None else part.get(self.stage, 0.0)
        return (self.number + within) / self.total


At = Callable[..., EvaluationProgress]
Work = Generator[EvaluationProgress, None, tuple[NDArray[np.float32], Record]]


class Evaluation:
    """Measures cells one after another, keeping each in a file of its own.

    A cell that is there, complete and with an equal key, is not computed again; so an evaluation that was stopped,
    or killed, goes on where it was.

    Parameters
    ----------
    experiments : sequence of Experiment
        In the order in which they are computed.
    folder : path
        Made where it does not exist. Cells go to ``cells/``, results as JSON and models as safetensors beside them.

    Raises
    ------
    ValueError
        If a cell cannot be computed, before any work; where there are several truths, it says which cannot be used.
    OSError
        If the folder cannot be written.
    """

    def __init__(self, experiments: Sequence[Experiment], folder: str | Path) -> None:
        if not experiments:
            raise ValueError("Got nothing to evaluate, expected at least one factor and one method: name them.")
        _check(experiments)
        self.experiments = tuple(experiments)
        self.folder = check_folder(folder) / CELLS
        self._degraded: tuple[Any, Degraded] | None = None

    def run(self) -> Iterator[EvaluationProgress]:
        """Compute the cells that are missing, yielding as it goes; the last record of a cell has its result."""
        for number, experiment in enumerate(self.experiments):
            at = functools.partial(EvaluationProgress, number, len(self.experiments), experiment)
            record = self.record(experiment)
            if record is not None:
                yield at("kept", 1.0, record=record)
            else:
                yield from self._compute(experiment, at)

    def record(self, experiment: Experiment) -> Record | None:
        """Return what is known of a cell, None where it is not complete."""
        found = read_record(self.folder / f"{experiment.name}.json")
        return found if found is not None and found["key"] == json.loads(json.dumps(experiment.key)) else None

    def records(self) -> list[Record]:
        """Return what is known of the cells so far, in their order."""
        return [record for experiment in self.experiments if (record := self.record(experiment)) is not None]

    def _compute(self, experiment: Experiment, at: At) -> Iterator[EvaluationProgress]:
        load = load_average()
        yield at("degrading", 0.0)
        degraded = self.degrade(experiment)
        work = self._refine if experiment.trained else self._interpolate
        image, report = yield from work(experiment, degraded, at)
        yield at("scoring", 0.0)
        scores = score(image, experiment.compared, experiment.border).as_json()
        scores["psnr"] = scores["psnr"] if np.isfinite(scores["psnr"]) else None  # JSON knows no infinity
        record = {
            "format": FORMAT,
            "key": experiment.key,
            "truth": experiment.truth.describe(),
            "degraded": {"shape": list(degraded.source.shape), "sr_shape": list(degraded.sr_shape)}
            | {"dtype": "float32", "cut": degraded.cut},
            "scores": scores,
            **report,
            "machine": describe_machine(),
            "load": {"start": load, "end": load_average()},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.folder / f"{experiment.name}.json", record)
        yield at("done", 1.0, record=self.record(experiment))

    def degrade(self, experiment: Experiment) -> Degraded:
        """Degrade the truth, unless the cell before was of the same kind."""
        same = (id(experiment.truth), experiment.axis, experiment.factor, experiment.fwhm)
        if self._degraded is None or self._degraded[0] != same:
            self._degraded = same, degrade(experiment.truth.voxels, experiment.axis, experiment.factor, experiment.fwhm)
        return self._degraded[1]

    def _interpolate(self, experiment: Experiment, degraded: Degraded, at: At) -> Work:
        yield at("super-resolving", 0.0)
        start = time.perf_counter()
        image = INTERPOLATIONS[experiment.method](degraded)
        seconds = time.perf_counter() - start
        return image, {"training": None, "inference": _rate(image.size, seconds), "model": None}

    def _refine(self, experiment: Experiment, degraded: Degraded, at: At) -> Work:
        training = Training(degraded.source, degraded.acquisition, experiment.config, experiment.device)
        for step in training.run():
            yield at("training", step.fraction, f"loss {step.loss:.4f}")
        facts = {"degraded": {k: experiment.key[k] for k in ("factor", "fwhm", "axis")} | {"cut": degraded.cut}}
        model = training.model(experiment.truth.describe() | facts)
        model.save(self.folder / f"{experiment.name}.safetensors")
        yield at("super-resolving", 0.0)
        refinement = Refinement(model.network, degraded, experiment.planes, experiment.device)
        start = time.perf_counter()
        for fraction in refinement.run():
            yield at("super-resolving", fraction)
        seconds = time.perf_counter() - start
        summary = training.summary()
        spent = training.history[-1].seconds
        report = {
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
        return refinement.image, report


def _rate(voxels: int, seconds: float) -> Record:
    return {"seconds": round(seconds, 3), "voxels_per_second": round(voxels / max(seconds, 1e-9))}
