"""Degrade a truth, train on what is left, super-resolve it, and score the result: cell by cell, resumable."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.core.training.training import Training
from napari_cropeq.evidence.evaluate.experiment import Cell, check_method
from napari_cropeq.evidence.evaluate.score import score
from napari_cropeq.evidence.evaluate.testset import joined
from napari_cropeq.evidence.evaluate.truth import Degraded, degrade
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS, Refinement
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.evidence.records import CELLS, FORMAT, Result, check_folder, read_result, write_json

__all__ = ["Evaluation", "EvaluationProgress"]


def _check(cells: Sequence[Cell]) -> None:
    refusals: dict[str, str] = {}
    for cell in cells:
        check_method(cell.method)
        who = cell.truth.path or cell.truth.name
        if who not in refusals:
            try:
                cell.check()
            except ValueError as error:
                refusals[who] = str(error)
    if refusals:
        raise ValueError(joined(refusals, len({id(cell.truth) for cell in cells})))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Where an evaluation stands."""

    number: int  # of the cell, from 0
    total: int  # cells
    cell: Cell
    stage: str  # "degrading", "training", "super-resolving", "scoring", then "done"; "kept" where it was there
    fraction: float  # of the stage
    detail: str = ""
    result: Result | None = None  # once the cell is done or kept

    @property
    def share(self) -> float:
        """The share of all cells that is done, each counted as one."""
        part = {"training": 0.9 * self.fraction, "super-resolving": 0.9 + 0.1 * self.fraction, "scoring": 1.0}
        within = 1.0 if self.result is not None else part.get(self.stage, 0.0)
        return (self.number + within) / self.total


At = Callable[..., EvaluationProgress]
Work = Generator[EvaluationProgress, None, tuple[NDArray[np.float32], Result]]


class Evaluation:
    """Measures cells one after another, keeping each in a file of its own.

    A cell that is there, complete and with an equal key, is not computed again; so an evaluation that was stopped,
    or killed, goes on where it was.

    Parameters
    ----------
    cells : sequence of Cell
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

    def __init__(self, cells: Sequence[Cell], folder: str | Path) -> None:
        if not cells:
            raise ValueError("Got nothing to evaluate, expected at least one factor and one method: name them.")
        _check(cells)
        self.cells = tuple(cells)
        self.folder = check_folder(folder) / CELLS
        self._degraded: tuple[Any, Degraded] | None = None

    def run(self) -> Iterator[EvaluationProgress]:
        """Compute the cells that are missing, yielding as it goes; the last record of a cell has its result."""
        for number, cell in enumerate(self.cells):
            at = functools.partial(EvaluationProgress, number, len(self.cells), cell)
            result = self.result(cell)
            if result is not None:
                yield at("kept", 1.0, result=result)
            else:
                yield from self._compute(cell, at)

    def result(self, cell: Cell) -> Result | None:
        """Return what is known of a cell, None where it is not complete."""
        found = read_result(self.folder / f"{cell.name}.json")
        return found if found is not None and found["key"] == json.loads(json.dumps(cell.key)) else None

    def results(self) -> list[Result]:
        """Return what is known of the cells so far, in their order."""
        return [result for cell in self.cells if (result := self.result(cell)) is not None]

    def _compute(self, cell: Cell, at: At) -> Iterator[EvaluationProgress]:
        load = load_average()
        yield at("degrading", 0.0)
        degraded = self.degrade(cell)
        work = self._refine if cell.trained else self._interpolate
        image, report = yield from work(cell, degraded, at)
        yield at("scoring", 0.0)
        scores = asdict(score(image, cell.compared, cell.rim))
        scores["psnr"] = scores["psnr"] if np.isfinite(scores["psnr"]) else None  # JSON knows no infinity
        result = {
            "format": FORMAT,
            "key": cell.key,
            "truth": cell.truth.describe(),
            "degraded": {"shape": list(degraded.source.shape), "sr_shape": list(degraded.sr_shape)}
            | {"dtype": "float32", "cut": degraded.cut},
            "scores": scores,
            **report,
            "machine": describe_machine(),
            "load": {"start": load, "end": load_average()},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.folder / f"{cell.name}.json", result)
        yield at("done", 1.0, result=self.result(cell))

    def degrade(self, cell: Cell) -> Degraded:
        """Degrade the truth, unless the cell before was of the same kind."""
        same = (id(cell.truth), cell.axis, cell.factor, cell.fwhm)
        if self._degraded is None or self._degraded[0] != same:
            self._degraded = same, degrade(cell.truth.voxels, cell.axis, cell.factor, cell.fwhm)
        return self._degraded[1]

    def _interpolate(self, cell: Cell, degraded: Degraded, at: At) -> Work:
        yield at("super-resolving", 0.0)
        start = time.perf_counter()
        image = INTERPOLATIONS[cell.method](degraded)
        seconds = time.perf_counter() - start
        return image, {"training": None, "inference": _rate(image.size, seconds), "model": None}

    def _refine(self, cell: Cell, degraded: Degraded, at: At) -> Work:
        training = Training(degraded.source, degraded.acquisition, cell.recipe, cell.device)
        for step in training.run():
            yield at("training", step.fraction, f"loss {step.loss:.4f}")
        facts = {"degraded": {k: cell.key[k] for k in ("factor", "fwhm", "axis")} | {"cut": degraded.cut}}
        model = training.model(cell.truth.describe() | facts)
        model.save(self.folder / f"{cell.name}.safetensors")
        yield at("super-resolving", 0.0)
        refinement = Refinement(model.network, degraded, cell.planes, cell.device)
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
            "model": f"{cell.name}.safetensors",
        }
        return refinement.image, report


def _rate(voxels: int, seconds: float) -> Result:
    return {"seconds": round(seconds, 3), "voxels_per_second": round(voxels / max(seconds, 1e-9))}
