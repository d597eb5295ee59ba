"""Interpolate a stack, deconvolve it, or train this project's networks on it and apply them.

    python benchmarks/peers/own.py FOLDER

FOLDER has raw.npy (slices, y, x) and settings.json. Results (z, y, x) are written there as NAME.npy with the name of
each row, and record.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "noise"))  # its methods

from methods import deconvolved, quintic

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.training import Training, TrainingConfig
from napari_cropeq.evidence.evaluate.truth import Degraded
from napari_cropeq.evidence.evaluate.upscaling import Refinement, cubic

TRIAL = 0.3
"""Minutes of the trial that measures the CPU time of a step."""

CHECKS = 20
"""Validations in a training with a patch budget, at least."""

ITERATIONS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
"""Of Richardson-Lucy that are tried."""

MARGIN = 24
"""Voxels by which a volume is mirrored along z before it is deconvolved."""

PLANES = {"one plane": None, "both planes": "both"}
SETTINGS: dict[str, dict[str, Any]] = {"ours": {}, "padded": {"network": "padded"}}
LEARNS = "Learning the expected error."


def stage(name: str) -> None:
    """Print which stage starts."""
    print(f"stage: {name}", flush=True)


def patches_for(raw: Any, acquisition: Acquisition, seconds: float, settings: dict[str, Any]) -> int:
    """Return the patches that a network is trained on in ``seconds`` of CPU time, estimated by a trial."""
    training = Training(raw, acquisition, TrainingConfig(minutes=min(TRIAL, seconds / 60), **settings), "cpu")
    plain, checked, last = [], [], time.process_time()
    for progress in training.run():
        now = time.process_time()
        if progress.note != LEARNS:
            (plain if progress.validation is None else checked).append(now - last)
        last = now
    step = float(np.median(plain or checked))
    check = max(0.0, float(np.median(checked or plain)) - step)
    return training.config.batch * max(1, round((seconds - CHECKS * check) / step))


def train(raw: Any, acquisition: Acquisition, settings: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    """Return a model of this project, and what it was trained on."""
    torch.set_num_threads(1)
    changed = SETTINGS[settings["method"]]
    stage("trial")
    patches = patches_for(raw, acquisition, settings["seconds"], changed)
    stage("start")
    config = TrainingConfig(minutes=None, patches=patches, seed=settings["seed"], **changed)
    training = Training(raw, acquisition, config, "cpu")
    stage("train")
    for progress in training.run():
        if progress.fraction == 1 and progress.validation is not None:
            stage("expected error")  # which the comparison does not use
    stage("start")
    model = training.model({"name": settings["method"]})
    done = model.training["patches"]
    return model, {"patches": done, "batch": config.batch, "steps": done // config.batch}


def main() -> None:
    """Compute the results of a method."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    raw = np.load(folder / "raw.npy")
    acquisition = Acquisition((settings["factor"], 1.0, 1.0))
    degraded = Degraded(raw, acquisition, acquisition.sr_shape(raw.shape), 0)
    method, about = settings["method"], {}
    if method == "interpolation":
        for name, found in {"cubic": cubic, "quintic": lambda given: quintic(given.source, acquisition)}.items():
            stage(f"infer, {name}")
            np.save(folder / f"{name}.npy", found(degraded).astype(np.float32))
    elif method == "Richardson-Lucy":
        base = np.pad(quintic(raw, acquisition), ((MARGIN, MARGIN), (0, 0), (0, 0)), mode="symmetric")
        for count in ITERATIONS:
            stage(f"infer, {count} iterations")
            found = deconvolved(base, acquisition, count)[MARGIN:-MARGIN]
            np.save(folder / f"{count} iterations.npy", found.astype(np.float32))
    else:
        model, about = train(raw, acquisition, settings)
        for name, planes in PLANES.items():
            stage(f"infer, {name}")
            refinement = Refinement(model, degraded, planes, "cpu")
            for _ in refinement.run():
                pass
            np.save(folder / f"{name}.npy", refinement.image)
    (folder / "record.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
