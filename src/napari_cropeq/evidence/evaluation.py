"""Degrade a truth, train on what is left, super-resolve it, and score the result: cell by cell, resumable."""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.core.geometry import AXIS_NAMES, MIN_SLICES, Acquisition, IntTriple, sr_length
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.core.predict import choose_device, plane_axes
from napari_cropeq.core.training import Recipe, Training
from napari_cropeq.core.whole_file import whole_file
from napari_cropeq.evidence.cohort import joined
from napari_cropeq.evidence.score import RIM, check_range, inside, score
from napari_cropeq.evidence.truth import Degraded, Truth, acquisition_for, degrade
from napari_cropeq.evidence.upscaling import INTERPOLATIONS, Refinement
from napari_cropeq.volume.machine import describe_machine, load_average

__all__ = [
    "CELLS",
    "Cell",
    "Evaluation",
    "EvaluationProgress",
    "check_method",
    "methods",
    "read_results",
    "write_json",
]

FORMAT = "napari-cropeq evaluation cell 1"
FAST = "fast"
"""The recipe's own network, whichever that is: what users get who choose nothing."""

CELLS = "cells"
FIXED = ("minutes", "patches", "network", "seed")
"""Fields of a recipe that a cell states itself."""

Result = dict[str, Any]


def methods() -> tuple[str, ...]:
    """Return the names of all methods: interpolations, networks, and ``fast`` for the default recipe."""
    return (*INTERPOLATIONS, FAST, *NETWORKS)


def check_method(name: str) -> None:
    """Raise ValueError if there is no method of that name."""
    if name not in methods():
        raise ValueError(f"Got method {name!r}, expected one of {', '.join(methods())}: choose one of these.")


@dataclass(frozen=True)
class Cell:
    """One thing to measure; each field is part of its key unless it says otherwise.

    Parameters
    ----------
    truth : Truth
        Known by its name and checksum.
    factor : float
        Step between slices, in truth voxels.
    method : str
        One of :func:`methods`.
    minutes, patches : float, int, optional
        Budget of a training: one of them, none for an interpolation.
    fwhm : float, optional
        Width of the slice profile in truth voxels; the factor by default.
    axis : int
        Index into z, y, x of the axis that is degraded.
    overrides : mapping
        Other fields of :class:`napari_cropeq.core.training.Recipe`.
    seed : int
        Of the training.
    rim : int
        Voxels left out of the scores on every side.
    planes : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    truth: Truth
    factor: float
    method: str
    minutes: float | None = None
    patches: int | None = None
    fwhm: float | None = None
    axis: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    rim: int = RIM
    planes: str | None = None
    device: str = "auto"

    @property
    def trained(self) -> bool:
        """Whether the method is a network."""
        return self.method not in INTERPOLATIONS

    @property
    def recipe(self) -> Recipe:
        """The training.

        Raises
        ------
        ValueError
            If there is no such field, or the recipe refuses its values.
        """
        known = [name for name in Recipe.__dataclass_fields__ if name not in FIXED]
        for name in self.overrides:
            if name not in known:
                raise ValueError(f"Got setting {name!r}, expected one of {', '.join(known)}: choose one of these.")
        minutes = None if self.minutes is None else float(self.minutes)
        values = dict(self.overrides) | {"minutes": minutes, "patches": self.patches, "seed": self.seed}
        if self.method != FAST:
            values["network"] = self.method
        return Recipe(**values)

    @property
    def key(self) -> Result:
        """What decides the scores, in values that JSON can hold."""
        fwhm = self.factor if self.fwhm is None else self.fwhm
        shared = {
            "truth": self.truth.name,
            "checksum": self.truth.checksum,
            "factor": float(self.factor),
            "fwhm": float(fwhm),
            "axis": AXIS_NAMES[self.axis],
            "rim": self.rim,
            "method": self.method,
        }
        if not self.trained:
            return shared
        recipe = asdict(self.recipe)
        return shared | {
            "minutes": recipe["minutes"],
            "patches": recipe["patches"],
            "overrides": dict(self.overrides),
            "seed": self.seed,
            "planes": "".join(AXIS_NAMES[a] for a in plane_axes(self.planes, self.axis)),
            "device": choose_device(self.device).type,
            "recipe": recipe,
        }

    @property
    def budget(self) -> str:
        """The training's budget in words, empty for an interpolation."""
        if not self.trained:
            return ""
        return f"{self.minutes:g} min" if self.minutes is not None else f"{self.patches} patches"

    @property
    def name(self) -> str:
        """File name without suffix: readable, and different for different keys."""
        digest = sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:8]
        words = (self.truth.name, f"x{self.factor:g}", self.method, self.budget.replace(" ", ""), digest)
        return re.sub(r"[^\w.+-]+", "-", "_".join(word for word in words if word))

    @property
    def compared(self) -> NDArray[Any]:
        """The part of the truth that the SR grid covers (z, y, x): less than all where the factor does not divide it.

        Raises
        ------
        ValueError
            If the truth cannot be degraded so.
        """
        acquisition, slices = acquisition_for(self.truth.shape, self.axis, self.factor, self.fwhm)
        length = sr_length(slices, acquisition.factor)
        return self.truth.voxels[tuple(slice(length if a == self.axis else None) for a in range(3))]

    def check(self) -> None:
        """Raise ValueError, in a sentence, if the cell cannot be computed; before the truth is degraded."""
        check_method(self.method)
        acquisition, _ = acquisition_for(self.truth.shape, self.axis, self.factor, self.fwhm)
        check_range(self.compared[inside(self.compared.shape, self.rim)], self.rim)
        if self.trained:
            plane_axes(self.planes, self.axis)
            _rehearse(self.recipe, acquisition, self.truth.shape, self.device)


@functools.lru_cache(maxsize=256)
def _rehearse(recipe: Recipe, acquisition: Acquisition, shape: IntTriple, device: str) -> None:
    """Train on one patch of noise as wide as the truth: what a training refuses, it refuses now."""
    small = replace(recipe, minutes=None, patches=1, batch=1, validation=1)
    thin = [MIN_SLICES if a == acquisition.axial else n for a, n in enumerate(shape)]
    noise = np.random.default_rng(0).random(thin, np.float32)
    for _ in Training(noise, acquisition, small, device).run():
        pass


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


def check_folder(folder: str | Path) -> Path:
    """Return ``folder``, made with its ``cells/`` where they did not exist.

    Raises
    ------
    OSError
        If it cannot be made or written.
    """
    folder = Path(folder).expanduser()
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / CELLS):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise OSError(f"Got the folder {folder}, which cannot be written ({reason}): choose another.") from error
    return folder


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; a file of that name is replaced only once the new one is complete."""
    with whole_file(path) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")


def read_result(path: Path) -> Result | None:
    """Return the result in a file, None where there is none or it is not complete."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(found, dict) and found.get("format") == FORMAT and {"key", "scores"} <= found.keys()
    return found if complete else None


def read_results(folder: str | Path) -> list[Result]:
    """Return all results in the folder of an evaluation, in the order of their file names."""
    found = (read_result(path) for path in sorted((Path(folder) / CELLS).glob("*.json")))
    return [result for result in found if result is not None]
