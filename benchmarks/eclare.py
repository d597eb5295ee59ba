"""ECLARE and this project on the same degraded MRI crop, with equal training times.

ECLARE (S. W. Remedios et al., arXiv 2503.11787; ``pip install eclare`` in a separate environment) is run as an external
program, once, because its inference is slow on a CPU. ``--ours-only`` repeats the experiments of this project and keeps
the rest of ``benchmarks/results/eclare.json``. If ECLARE is not installed, it is skipped with a message.

Equal times are equal CPU times, because other work on the machine stretches wall-clock time. ``minutes`` in the report
is CPU time divided by threads, which equals wall-clock time if all cores are free. Wall-clock times are also given.

    python benchmarks/eclare.py --executable path/to/run-eclare
    python benchmarks/eclare.py --ours-only
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import psutil
import torch
from scipy import ndimage

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.training import Training, TrainingConfig
from napari_cropeq.evidence.evaluate.score import score
from napari_cropeq.evidence.evaluate.truth import Degraded, degrade
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.formats.open import open_image

ROOT = Path(__file__).resolve().parents[1]
VOLUME = "mri_t1_isotropic_1mm.nii.gz"
RESULTS = ROOT / "benchmarks" / "results" / "eclare.json"

SIDE = 128
"""Side of the crop from the volume's centre, voxels."""

FACTOR = 4
"""Step between slices and FWHM of their Gaussian profile, truth voxels."""

BORDER = 16
"""Voxels left out of the scores on every side."""

SHIFTS = np.arange(-4, 5) / 2
"""Axial shifts at which ECLARE's result is compared, truth voxels from the position of its affine."""

ECLARE = "eclare"

TRIAL = 0.4
"""Minutes of a trial that measures the CPU time per patch."""

CHECKS = 20
"""Validations in a training with a patch budget."""

Image = npt.NDArray[np.float32]
Experiment = dict[str, Any]


def find_volume() -> Path:
    """Return the volume in ``shared/data`` beside the checkout, or in a parent folder."""
    places = [parent / "shared" / "data" / VOLUME for parent in ROOT.parents]
    return next((place for place in places if place.exists()), places[0])


def read_truth(path: Path) -> Image:
    """Return the crop (z, y, x) from the centre of a volume."""
    voxels = np.asarray(open_image(path).volume().compute(), np.float32)
    return voxels[tuple(slice((n - SIDE) // 2, (n - SIDE) // 2 + SIDE) for n in voxels.shape)]


def at(volume: Image, positions: npt.NDArray[np.float64]) -> Image:
    """Return the planes of ``volume`` (z, y, x) at ``positions`` along z, interpolated by quintic splines."""
    places = np.meshgrid(positions, *map(np.arange, volume.shape[1:]), indexing="ij")
    return ndimage.map_coordinates(volume.astype(np.float64), places, order=5, mode="mirror").astype(np.float32)


def scores_of(image: Image, truth: Image) -> dict[str, float]:
    """Return PSNR in dB and SSIM inside the border, rounded."""
    found = score(image, truth, BORDER)
    return {"psnr": round(found.psnr, 3), "ssim": round(found.ssim, 5)}


def experiment(method: str, scores: dict[str, float], **details: Any) -> Experiment:
    """Return the record of one method."""
    return {"volume": f"MRI, {SIDE}³ crop", "factor": float(FACTOR), "method": method, **scores, **details}


def interpolations(degraded: Degraded, truth: Image) -> list[Experiment]:
    """Score the two interpolations."""
    return [experiment(method, scores_of(restore(degraded), truth)) for method, restore in INTERPOLATIONS.items()]


def ours(degraded: Degraded, truth: Image, seconds: float) -> list[Experiment]:
    """Train with the default settings for ``seconds`` of CPU time; score one plane direction and both."""
    load, source, acquisition = load_average(), degraded.source, degraded.acquisition
    config = TrainingConfig(minutes=None, patches=patches_for(degraded, seconds))
    training = Training(source, acquisition, config, "cpu")
    spent = time.process_time()
    for _ in training.run():
        pass
    spent = time.process_time() - spent
    summary = training.summary()
    losses = [validation for *_, validation in summary["losses"]]
    trained = {
        "seconds": summary["seconds"],
        "cpu_seconds": round(spent, 1),
        "patches": summary["patches"],
        "validation": {"first": losses[0], "best": min(losses)},
        "recipe": asdict(config),
    }
    experiments = []
    for planes, method in ((None, "ours"), ("both", "ours, both planes")):
        predictor = Predictor(training.network, acquisition, source, training.normalisations[0], planes, device="cpu")
        start, busy = time.perf_counter(), time.process_time()
        image = predictor(Box.whole(predictor.sr_shape))
        inference = {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - busy, 1),
        }
        details = {"training": trained, "inference": inference, "machine": machine()}
        experiments.append(
            experiment(method, scores_of(image, truth), **details, load={"start": load, "end": load_average()})
        )
    return experiments


def patches_for(degraded: Degraded, seconds: float) -> int:
    """Return the patches that the default settings train on in ``seconds`` of CPU time, estimated by a trial."""
    training = Training(degraded.source, degraded.acquisition, TrainingConfig(minutes=TRIAL), "cpu")
    plain, checked, last = [], [], time.process_time()
    for progress in training.run():
        now = time.process_time()
        (plain if progress.validation is None else checked).append(now - last)
        last = now
    step = float(np.median(plain or checked))
    check = max(0.0, float(np.median(checked)) - step)
    return training.config.batch * max(1, round((seconds - CHECKS * check) / step))


def eclare(executable: str, source: Image, truth: Image, work: Path, arguments: argparse.Namespace) -> Experiment:
    """Run ECLARE on the slices as NIfTI, and score its output."""
    load = load_average()
    affine = np.diag([1.0, 1.0, FACTOR, 1.0])
    affine[2, 3] = (FACTOR - 1) / 2  # the first slice's centre, where that of the truth's first voxel is 0
    image = nibabel.Nifti1Image(source.T, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, work / "slices.nii.gz")
    # The profile is given relative to the in-plane step, because estimating it takes longer than the training.
    options = (
        f"--n-patches {arguments.patches} --relative-slice-thickness {FACTOR} --relative-slice-profile-type gaussian"
    )
    options += f" --batch-size {arguments.batch_size}" if arguments.batch_size else ""
    command = [executable, "--in-fpath", str(work / "slices.nii.gz"), "--out-dir", str(work / "out"), "--gpu-id", "-1"]
    times = follow([*command, *shlex.split(options), "--verbose"], work / "console.log", arguments)
    result = nibabel.load(next((work / "out").rglob("*_eclare.nii.gz")))
    scores, placement = place(result, truth)
    return experiment(
        name(arguments),
        scores,
        **times,
        options=options,
        profile="told: Gaussian, FWHM 4 in-plane voxels",
        placement=placement,
        machine=machine() | {"versions": versions_beside(executable)},
        load={"start": load, "end": load_average()},
    )


def name(arguments: argparse.Namespace) -> str:
    """Return the name of this run of ECLARE in the report."""
    return f"{ECLARE}, batch {arguments.batch_size}" if arguments.batch_size else ECLARE


def follow(command: Sequence[str], log: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run ECLARE with its console output in ``log``; return the seconds of training and inference.

    They are read from its two progress bars: the first counts patches and starts with the training, the second counts
    slices.
    """
    threads = str(arguments.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    earlier, text, marks = children_seconds(), "", [(time.monotonic(), 0.0)]
    with open(log, "wb") as file:
        while chunk := os.read(process.stdout.fileno(), 2**16):
            file.write(chunk)
            file.flush()
            text += chunk.decode(errors="replace")
            totals = [int(total) for total in re.findall(r"\b0/(\d+) \[", text)]
            training = arguments.patches in totals
            seen = 1 + training + (training and totals[-1] != arguments.patches)
            if seen > len(marks):
                marks.append((time.monotonic(), cpu_seconds(process)))
    if process.wait() != 0 or len(marks) != 3:
        raise RuntimeError(f"ECLARE failed or showed no two progress bars (exit code {process.returncode}). See {log}.")
    (start, _), (started, before), (trained, after) = marks
    spent = round(trained - started, 1)
    losses = re.findall(r"(\d+)(?:/\d+ |it )\[[^\]]*loss=([\d.e-]+)", text)
    return {
        "training": {
            "seconds": spent,
            "cpu_seconds": round(after - before, 1),
            "patches": int(losses[-1][0]) if losses else arguments.patches,
            "last_loss": float(losses[-1][1]) if losses else None,
        },
        "inference": {
            "seconds": round(time.monotonic() - trained, 1),
            "cpu_seconds": round(children_seconds() - earlier - after, 1),
        },
        "start_up": {"seconds": round(started - start, 1)},
    }


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and its children, including those that have ended, s."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            total += sum(member.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def children_seconds() -> float:
    """Return the CPU time of all children that have ended, s."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def place(result: Any, truth: Image) -> tuple[dict[str, float], dict[str, Any]]:
    """Align ECLARE's result with the truth by its affine, shifted by half voxels; return the best and all scores."""
    voxels, affine = np.asarray(result.dataobj, np.float32).T, result.affine
    if not np.allclose(affine[:3, :3], np.eye(3), atol=1e-3) or voxels.shape[1:] != truth.shape[1:]:
        raise RuntimeError(f"The result does not have 1 mm voxels: shape {voxels.shape}, affine {affine.tolist()}.")
    index = np.arange(len(truth)) - affine[2, 3]
    tried = {f"{shift:+g}": scores_of(at(voxels, index + shift), truth) for shift in SHIFTS}
    best = max(tried, key=lambda shift: tried[shift]["psnr"])
    return tried[best], {"shape": list(voxels.shape), "origin": affine[:3, 3].tolist(), "shift": best, "tried": tried}


def versions_beside(executable: str) -> dict[str, str]:
    """Return the versions in the environment of ``executable``."""
    code = "import importlib.metadata as m, json, platform; v = {p: m.version(p) for p in ('eclare', 'torch', 'numpy')}"
    python = Path(executable).with_name("python")
    printed = subprocess.run(
        [python, "-c", f"{code}; print(json.dumps(v))"], capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)


def machine() -> dict[str, Any]:
    """Return the description of the machine, with the priority of this process."""
    return describe_machine() | {"nice": os.nice(0)}


def write(path: Path, experiments: Sequence[Experiment]) -> None:
    """Add experiments to the report, replacing earlier ones of the same methods, and print a line for each."""
    about = {
        "truth": f"{VOLUME}, {SIDE} voxels a side from its centre",
        "degraded": f"along z: Gaussian of FWHM {FACTOR} px, every {FACTOR} px at cell centres, border mirrored",
        "scores": f"against the untouched crop without a border of {BORDER} px; PSNR in dB; SSIM 3D, uniform window 7",
        "data_range": "of the truth inside the border",
        "minutes": "CPU time of the training over threads; seconds are on the clock, under the load that is given",
    }
    kept = read(path) | {c["method"]: c for c in experiments}
    for c in kept.values():
        if "training" in c:
            c["minutes"] = round(c["training"]["cpu_seconds"] / c["machine"]["torch_threads"] / 60, 2)
    for c in experiments:
        minutes = f", {c['minutes']:g} min of training" if "minutes" in c else ""
        print(f"{c['method']}: {c['psnr']:.2f} dB, SSIM {c['ssim']:.4f}{minutes}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, "cells": list(kept.values())}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Experiment]:
    """Return the experiments of the report by method, none if the report does not exist."""
    if not path.exists():
        return {}
    return {c["method"]: c for c in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executable", default="run-eclare", help="ECLARE's command")
    parser.add_argument("--patches", type=int, default=3072, help="patches that ECLARE trains on")
    parser.add_argument("--batch-size", type=int, help="batch size of ECLARE; its own default if not given")
    parser.add_argument("--ours-only", action="store_true", help="do not run ECLARE; keep its experiment")
    parser.add_argument("--minutes", type=float, help="of this project's training; those of ECLARE by default")
    parser.add_argument("--threads", type=int, default=2, help="threads of either")
    parser.add_argument("--volume", type=Path, default=find_volume(), help="the isotropic volume")
    parser.add_argument("--work", type=Path, help="keep ECLARE's input, output and console log in this folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the report")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark."""
    arguments = parse()
    executable = shutil.which(arguments.executable)
    if not arguments.volume.exists():
        print(f"SKIPPED: there is no {arguments.volume}")
        return 0
    torch.set_num_threads(arguments.threads)
    truth = read_truth(arguments.volume)
    degraded = degrade(truth, 0, FACTOR)
    write(arguments.results, interpolations(degraded, truth))
    if executable is None and not arguments.ours_only:
        print(f"SKIPPED {ECLARE}: there is no {arguments.executable}; its experiment in the report, if any, is kept")
    elif not arguments.ours_only:
        with tempfile.TemporaryDirectory() as folder:
            work = arguments.work or Path(folder)
            work.mkdir(parents=True, exist_ok=True)
            write(arguments.results, [eclare(executable, degraded.source, truth, work, arguments)])
    seconds = (arguments.minutes or 0) * 60 * arguments.threads
    if not seconds:
        measured = read(arguments.results).get(ECLARE)
        if measured is None:
            print("There is no training time of ECLARE to compare with. Give one with --minutes.", file=sys.stderr)
            return 2
        seconds = measured["training"]["cpu_seconds"]
    write(arguments.results, ours(degraded, truth, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
