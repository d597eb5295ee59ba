"""Each method as a program of its own: its input, its training in CPU time, its result on the grid of the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from follow import Program, said
from plan import Cell
from scoring import placed
from stacks import Stack
from volumes import Volume

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / "benchmark-output" / "peers" / "env"
PACKAGES = {"CARE": ("csbdeep", "tensorflow-cpu", "keras", "numpy"), "ECLARE": ("eclare", "torch", "numpy")}

BATCH = 16
"""Patches in a step of ECLARE. With 128, its default, minutes on a CPU are a few dozen steps."""

TRIAL = 640
"""Patches of the trial that measures ECLARE's CPU time for each."""

CLIPPED = {"mouse brain x3": 99.9}
"""Percentile at which intensities are clipped for ECLARE, which scales an image by its extremes.

The brightest voxel of the mouse brain is 12 times the mean; without this, two of three planes stay dark."""

Measured = tuple[dict[str, Volume], dict[str, Any]]


def missing(method: str) -> str | None:
    """Return why a method cannot run, None if it can."""
    there = method not in PACKAGES or _python(method).exists()
    return None if there else f"there is no {_python(method)}. scripts/peers makes it."


def measure(cell: Cell, stack: Stack, folder: Path, core: int | None) -> Measured:
    """Return the results of a method by the name of their row, on the grid of the truth, and what they cost.

    ``folder`` is for the files of the programs, which run on ``core``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npy"):
        old.unlink()
    np.save(folder / "raw.npy", stack.raw)
    acquisition = stack.acquisition
    settings = {
        "method": cell.method,
        "seconds": 60 * cell.minutes,
        "seed": cell.seed,
        "factor": acquisition.factor,
        "fwhm": acquisition.fwhm_px,
        "poisson": stack.raw.dtype.kind == "u",
        "clipped at": CLIPPED.get(cell.volume, 100.0),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return {"CARE": _care, "ECLARE": _eclare}.get(cell.method, _own)(settings, stack, folder, core)


def _own(settings: dict[str, Any], stack: Stack, folder: Path, core: int | None) -> Measured:
    """Run one of this project's methods."""
    cost = _drive([sys.executable, str(HERE / "own.py"), str(folder)], folder, core)
    found = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy")) if path.name != "raw.npy"}
    return found, cost


def _care(settings: dict[str, Any], stack: Stack, folder: Path, core: int | None) -> Measured:
    """Run IsotropicCARE. Its planes lie where scipy's ``zoom`` puts them: the first and last are those of the stack."""
    cost = _drive([str(_python("CARE")), str(HERE / "care.py"), str(folder)], folder, core)
    result, factor = np.load(folder / "result.npy"), stack.acquisition.factor
    step = factor * (len(stack.raw) - 1) / (len(result) - 1)
    return _placed(result, (factor - 1) / 2, step, stack, cost | {"versions": _versions("CARE")})


def _drive(command: list[str], folder: Path, core: int | None) -> dict[str, Any]:
    """Run a driver; return its stages and its record."""
    program = Program(command, core)
    program.follow(folder / "console.log", said)
    return {"stages": program.record(), **json.loads((folder / "record.json").read_text())}


def _eclare(settings: dict[str, Any], stack: Stack, folder: Path, core: int | None) -> Measured:
    """Run ECLARE on the slices as NIfTI: a trial until it applies its network, then the training."""
    factor = settings["factor"]
    affine = np.diag([1.0, 1.0, factor, 1.0])
    affine[2, 3] = (factor - 1) / 2  # the first slice's centre, where that of the truth's first voxel is 0
    slices = np.minimum(stack.raw, np.percentile(stack.raw, settings["clipped at"])).astype(np.float32)
    image = nibabel.Nifti1Image(slices.T, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "slices.nii.gz")
    out = folder / "out"
    for old in out.rglob("*.nii.gz") if out.exists() else ():
        old.unlink()

    def run(patches: int, last: str | None) -> Program:
        command = [str(_python("ECLARE").with_name("run-eclare")), "--in-fpath", str(folder / "slices.nii.gz")]
        command += ["--out-dir", str(out), "--gpu-id", "-1", "--verbose", "--n-patches", str(patches)]
        command += ["--batch-size", str(BATCH), "--relative-slice-thickness", str(settings["fwhm"])]
        program = Program([*command, "--relative-slice-profile-type", "gaussian"], core)
        program.follow(folder / "console.log", _bars(patches), last)
        return program

    trial = run(TRIAL, "infer, result").stages["train"].cpu_seconds
    patches = BATCH * max(1, round(settings["seconds"] / trial * TRIAL / BATCH))
    program = run(patches, None)
    result = nibabel.load(next(out.rglob("*_eclare.nii.gz")))
    cost = {"stages": program.record(), "patches": patches, "batch": BATCH, "steps": patches // BATCH}
    cost["clipped at"] = settings["clipped at"]
    voxels = np.asarray(result.dataobj, np.float32).T
    grid = float(result.affine[2, 3]), float(result.affine[2, 2])
    return _placed(voxels, *grid, stack, cost | {"versions": _versions("ECLARE")})


def _bars(patches: int) -> Callable[[str], str | None]:
    """Return what finds ECLARE's stages: its first progress bar counts patches, the others slices."""
    trained = False

    def stage_of(text: str) -> str | None:
        nonlocal trained
        totals = [int(total) for total in re.findall(r"\b0/(\d+) \[", text)]
        trained = trained or patches in totals
        if trained and totals and totals[-1] != patches:
            return "infer, result"
        return "train" if trained and totals else None

    return stage_of


def _placed(result: Volume, start: float, step: float, stack: Stack, cost: dict[str, Any]) -> Measured:
    truth = stack.truth
    if result.shape[1:] != truth.shape[1:]:
        raise RuntimeError(f"The result has {result.shape[1:]} px in a plane, not {truth.shape[1:]}.")
    found, shift = placed(result, start, step, truth)
    placement = {"shape": list(result.shape), "start": round(start, 4), "step": round(step, 4), "shift": shift}
    return {"result": found}, cost | {"placement": placement}


def _python(method: str) -> Path:
    return ENVIRONMENTS / method.lower() / "bin" / "python"


def _versions(method: str) -> dict[str, str]:
    """Return the versions in the environment of a peer."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PACKAGES[method]!r}}}))"
    printed = subprocess.run([_python(method), "-c", code], capture_output=True, text=True, check=True)
    return json.loads(printed.stdout)
