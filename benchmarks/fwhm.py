"""Error of the suggested FWHM of the slice profile, on volumes blurred by a known FWHM.

Synthetic isotropic volumes (with and without photon and read-out noise) and real isotropic volumes are blurred along
one axis by a Gaussian, sampled at an axial step, and passed to `suggest_fwhm`. For comparison, the FWHM is also found
by matching the power spectra of axial lines and degraded lateral lines. Prints a table and writes results/fwhm.json.

    python benchmarks/fwhm.py [--data FOLDER] [--synthetic-only]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, mirror, source_range, sr_length
from napari_cropeq.core.slice_profile.suggestion import suggest_fwhm
from napari_cropeq.core.spline import degradation
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.phantom import draw_background, draw_neurons, draw_vessels

ROOT = Path(__file__).resolve().parents[1]
SIDE = 192
STEP_AND_FWHM = [(2, 2), (3, 3), (4, 4), (6, 6), (2.433, 5.35), (4, 6), (4, 2)]  # lateral pixels
PHOTONS, READ_NOISE = 40, 3  # photons: of the brightest structures, above a background of 5
REAL = [
    ("MRI T1", "mri_t1_isotropic_1mm.nii.gz", 0, 1.0),
    ("MRI T1, along y", "mri_t1_isotropic_1mm.nii.gz", 1, 1.0),
    ("MRI T1, along x", "mri_t1_isotropic_1mm.nii.gz", 2, 1.0),
    ("EM", "em_isotropic_8nm.tif", 0, 1.0),
    ("EM, along y", "em_isotropic_8nm.tif", 1, 1.0),
    ("EM, along x", "em_isotropic_8nm.tif", 2, 1.0),
    ("mouse brain, 50 × 40 × 40 µm", "mouse_brain_whole_50x40x40um.ome.tif", 0, 1.25),
    ("mouse brain, voxels taken as cubes", "mouse_brain_whole_50x40x40um.ome.tif", 0, 1.0),
]


def synthetic(seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield isotropic volumes (z, y, x), float32."""
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE, SIDE)

    def smooth(width: float) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), width, mode="wrap")
        return field / field.std()

    yield "texture", smooth(1) + 2 * smooth(2) + 4 * smooth(5)
    spots = np.zeros(shape, np.float32)
    places = rng.integers(0, SIDE, (spots.size // 900, 3))
    spots[tuple(places.T)] = rng.uniform(0.3, 1, len(places))
    yield "spots", ndimage.gaussian_filter(spots, 1.0)
    cells = (smooth(4) > 0.5) + np.float32(0.5) * (smooth(2.5) > 1)
    yield "cells", ndimage.gaussian_filter(cells, 0.6)
    for name, draw in (("neurons", draw_neurons), ("vessels", draw_vessels)):
        photons = 240 * draw(rng, shape) + 10 * draw_background(rng, shape)
        yield name, ndimage.gaussian_filter(photons, 1.4 / FWHM_PER_SIGMA)


def real(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield real volumes with the axis to degrade first, and the voxel size along it in lateral pixels."""
    for name, file, axis, voxel in REAL:
        if (folder / file).exists():
            volume = np.asarray(open_image(folder / file).volume(), np.float32)
            yield name, np.moveaxis(volume, axis, 0), voxel
        else:
            print(f"skipped: {name} ({folder / file} does not exist)")


def acquired(truth: np.ndarray, step: float, fwhm: float) -> np.ndarray:
    """Return a volume blurred along its first axis and sampled at exact positions; step and FWHM in its voxels."""
    slices = math.floor(len(truth) / step + 1e-6)
    _, down, first = degradation(0, sr_length(slices, step), step, fwhm / FWHM_PER_SIGMA)
    places = (np.arange(down.shape[1]) + first).astype(np.int64)
    # `down` also has rows for samples beyond either end, which an interpolation needs.
    before = -source_range(0, sr_length(slices, step), step)[0]
    lines = truth[mirror(places, len(truth))].reshape(len(places), -1)
    return (down[before : before + slices].astype(np.float32) @ lines).reshape(slices, *truth.shape[1:])


def photographed(volume: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a volume with the noise of a camera at few photons."""
    rng = np.random.default_rng(seed)
    low, high = volume.min(), np.percentile(volume, 99.5)
    photons = rng.poisson(np.maximum((volume - low) / (high - low) * PHOTONS + 5, 0))
    return (photons + READ_NOISE * rng.standard_normal(volume.shape)).astype(np.float32)


def matched_spectra(volume: np.ndarray, step: float) -> float:
    """Return the FWHM, lateral pixels, for which degraded lateral lines have the spectrum of axial lines."""

    def spectrum(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lines = (lines - lines.mean(axis=0)).reshape(len(lines), -1) * np.hanning(len(lines))[:, None]
        return np.fft.rfftfreq(len(lines)), (np.abs(np.fft.rfft(lines, axis=0)) ** 2).mean(axis=1)

    frequency, axial = spectrum(volume[:, ::3, ::3])
    lateral = np.moveaxis(volume[::4, :, ::6], 1, 0)
    candidates = np.geomspace(0.25, 4, 29) * step
    misfit = []
    for candidate in candidates:
        place, power = spectrum(acquired(lateral, step, candidate))
        ratio = np.log(axial / np.interp(frequency, place, power))
        misfit.append(ratio[2:].std())
    return float(candidates[np.argmin(misfit)])


def measure(group: str, name: str, volume: np.ndarray, step: float, fwhm: float) -> dict:
    """Measure both estimates on one volume (z, y, x); step and FWHM in lateral pixels."""
    acquisition = Acquisition((step, 1.0, 1.0), unit="pixel")
    start, worked = time.perf_counter(), time.process_time()
    found = suggest_fwhm(volume, acquisition)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    naive = matched_spectra(volume, step)
    row = {
        "group": group,
        "volume": name,
        "shape": list(volume.shape),
        "step_px": round(step, 4),
        "fwhm_px": round(fwhm, 4),
        "suggested_px": round(found.fwhm, 3) if found.reliable else None,
        "low_px": round(found.low, 3) if found.reliable else None,
        "high_px": round(found.high, 3) if found.reliable else None,
        "error": round(found.fwhm / fwhm - 1, 4) if found.reliable else None,
        "reason": found.reason,
        "best_candidate_px": round(float(found.candidates[np.argmin(found.mismatch)]), 3),
        "spectrum_match_error": round(naive / fwhm - 1, 4),
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
    }
    text = f"{found.fwhm:5.2f} [{found.low:5.2f}, {found.high:5.2f}] {found.fwhm / fwhm - 1:+6.0%}"
    print(
        f"{group:10s} {name:36s} step {step:5.2f}  FWHM {fwhm:5.2f}  {text if found.reliable else 'no number':29s}",
        f"spectrum match {naive / fwhm - 1:+6.0%}  {seconds:4.1f} s ({worked:.1f} of the processor)",
        flush=True,
    )
    return row


def summary(rows: list[dict]) -> dict:
    """Return the errors of both estimates, group by group."""
    out = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        ours = [row for row in rows if row["group"] == group]
        suggested = [row for row in ours if row["error"] is not None]
        error = np.array([row["error"] for row in suggested])
        naive = np.array([row["spectrum_match_error"] for row in ours])
        out[group] = {
            "volumes": len(ours),
            "no_number": len(ours) - len(suggested),
            "median_absolute_error": round(float(np.median(np.abs(error))), 4),
            "worst_absolute_error": round(float(np.abs(error).max()), 4),
            "within_15_percent": round(float((np.abs(error) <= 0.15).mean()), 4),
            "truth_in_interval": round(
                float(np.mean([row["low_px"] <= row["fwhm_px"] <= row["high_px"] for row in suggested])), 4
            ),
            "median_interval": round(float(np.median([row["high_px"] / row["low_px"] for row in suggested])), 4),
            "spectrum_match_median_absolute_error": round(float(np.median(np.abs(naive))), 4),
            "spectrum_match_worst_absolute_error": round(float(np.abs(naive).max()), 4),
            "median_seconds": float(np.median([row["seconds"] for row in ours])),
            "longest_processor_seconds": max(row["processor_seconds"] for row in ours),
        }
    return out


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real volumes")
    parser.add_argument("--synthetic-only", action="store_true", help="without the real volumes")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "fwhm.json")
    options = parser.parse_args()
    rows = []
    for name, truth in synthetic():
        for step, fwhm in STEP_AND_FWHM:
            clean = acquired(truth, step, fwhm)
            rows.append(measure("synthetic", name, clean, step, fwhm))
            rows.append(measure("noisy", name, photographed(clean), step, fwhm))
        if name != "texture":  # smooth noise, which stays a texture when stretched
            longer = ndimage.zoom(truth, (1.25, 1, 1), order=3)
            for step, fwhm in STEP_AND_FWHM[:5]:
                rows.append(
                    measure("stretched", f"{name}, 1.25 × longer axially", acquired(longer, step, fwhm), step, fwhm)
                )
    for name, truth, voxel in [] if options.synthetic_only else real(options.data):
        for step, fwhm in STEP_AND_FWHM:
            rows.append(measure("real", name, acquired(truth, step, fwhm), step * voxel, fwhm * voxel))
    result = {"machine": platform.machine(), "summary": summary(rows), "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
