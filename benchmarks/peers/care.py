"""Train IsotropicCARE on a stack and apply it; run by the Python of its environment, as its example does it.

    python benchmarks/peers/care.py FOLDER

FOLDER has raw.npy (slices, y, x) and settings.json. The result is written there as result.npy, and record.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf
from csbdeep.data import RawData, create_patches
from csbdeep.data.transform import anisotropic_distortions
from csbdeep.models import Config, IsotropicCARE
from csbdeep.utils import axes_dict

PATCH = 64
"""Side, px. The example has 128, which is wider than what its transform leaves of 128 px at a factor of 2.433."""

PATCHES = 2048
"""As many pixels as in the example's 512 patches."""

WARM_UP, TIMED = 5, 20
"""Steps of the trial: to compile, and to measure."""

EPOCHS = (10, 100)
"""Fewest and most; the second is the default."""

STEPS = 40
"""Of an epoch, if that gives no more epochs than the default: its validation then takes about a tenth of the time."""


def stage(name: str) -> None:
    """Print which stage starts."""
    print(f"\nstage: {name}", flush=True)


def pairs(raw: Any, settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return patches with and without the blur and the steps of the axial axis."""
    sigma = settings["fwhm"] / 2.3548
    distance = np.arange(-int(np.ceil(3 * sigma)), int(np.ceil(3 * sigma)) + 1)
    profile = np.exp(-0.5 * (distance / sigma) ** 2)[None]
    transform = anisotropic_distortions(
        subsample=settings["factor"],
        psf=profile / profile.sum(),
        psf_axes="YX",
        poisson_noise=settings["poisson"],
    )
    X, Y, axes = create_patches(
        raw_data=RawData.from_arrays([raw], [raw], axes="ZYX"),
        patch_size=(1, PATCH, PATCH),
        n_patches_per_image=PATCHES,
        transforms=[transform],
        verbose=False,
    )
    z, c = (axes_dict(axes)[name] for name in "ZC")
    return tuple(np.moveaxis(part, c, -1).take(0, axis=z - (c < z)) for part in (X, Y))


def augmented(x: Any, y: Any) -> tuple[Any, Any]:
    """Return a pair with another contrast and brightness, as in the example."""
    scale, offset = np.random.uniform(0.5, 2, (1, 1, 1)), np.random.uniform(-1, 1, (1, 1, 1))
    return x * scale + offset, y * scale + offset


def steps_for(model: IsotropicCARE, data: tuple[Any, ...], seconds: float) -> int:
    """Return the steps that take ``seconds`` of CPU time with validation, estimated by a trial."""
    (X, Y), held_out = data
    fit = {"validation_data": held_out, "augmenter": augmented, "epochs": 1}
    model.train(X, Y, steps_per_epoch=WARM_UP, **fit)
    started = time.process_time()
    model.train(X, Y, steps_per_epoch=TIMED, **fit)
    short = time.process_time() - started
    started = time.process_time()
    model.train(X, Y, steps_per_epoch=2 * TIMED, **fit)
    step = max(1e-3, (time.process_time() - started - short) / TIMED)
    validation = max(0.0, short - TIMED * step)
    epochs = _epochs(seconds / step)
    return max(1, int((seconds - epochs * validation) / step))


def _epochs(steps: float) -> int:
    return int(np.clip(steps / STEPS, *EPOCHS))


def main() -> None:
    """Compute the result."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    np.random.seed(settings["seed"])
    tf.random.set_seed(settings["seed"])
    raw = np.load(folder / "raw.npy").astype(np.float32)
    X, Y = pairs(raw, settings)
    held = len(X) // 10
    data = (X[:-held], Y[:-held]), (X[-held:], Y[-held:])

    def model_of(name: str, **more: Any) -> IsotropicCARE:
        config = Config("SYXC", 1, 1, train_tensorboard=False, **more)
        return IsotropicCARE(config, name, basedir=str(folder))

    stage("trial")
    steps = steps_for(model_of("trial"), data, settings["seconds"])
    stage("start")
    epochs = _epochs(steps)
    patience = max(1, epochs // 10)  # 10 of the default's 100
    rate = {"factor": 0.5, "patience": patience, "min_delta": 0}
    steps = max(1, round(steps / epochs))
    model = model_of("model", train_epochs=epochs, train_steps_per_epoch=steps, train_reduce_lr=rate)
    stage("train")
    history = model.train(*data[0], validation_data=data[1], augmenter=augmented)
    stage("infer, result")
    result = model.predict(raw, "ZYX", settings["factor"])
    np.save(folder / "result.npy", result.astype(np.float32))
    steps = epochs * model.config.train_steps_per_epoch
    batch = model.config.train_batch_size
    rates = history.history.get("learning_rate", [model.config.train_learning_rate])
    about = {"steps": steps, "batch": batch, "patches": steps * batch, "epochs": epochs, "last rate": float(rates[-1])}
    (folder / "record.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
