"""The stacks of the comparison with peers: known truths, and what is acquired of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from volumes import BRIGHTEST, Volume, image, phantom, photograph

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.formats.open import open_image

SIDE = 128
"""Voxels of a truth along each axis, of which the last may be no whole slice."""

PHOTONS = 30
"""At the brightest voxel of the noisy phantom."""

CENTRE = (0.5, 0.5, 0.5)
MRI = "mri_t1_isotropic_1mm.nii.gz", CENTRE
BRAIN = "mouse_brain_whole_50x40x40um.ome.tif", CENTRE
VOLUMES = {
    "MRI x4": (MRI, 4.0, None),
    "phantom x2.433": (None, 2.433, None),
    "phantom x2.433, 30 photons": (None, 2.433, PHOTONS),
    "mouse brain x3": (BRAIN, 3.0, None),
}
"""File (None for the phantom) with the middle of the crop, factor, photons. Slices are as thick as their distance."""


@dataclass(frozen=True)
class Stack:
    """A truth, and how it is acquired."""

    truth: Volume  # (z, y, x)
    clean: Volume  # (slices, y, x), without noise
    raw: Volume  # (slices, y, x), as acquired
    acquisition: Acquisition

    @classmethod
    def acquire(cls, truth: Volume, factor: float, photons: float | None = None) -> Stack:
        """Image a truth (z, y, x) in slices that are as thick as their distance; with photons, count them."""
        acquisition = Acquisition((factor, 1.0, 1.0))
        if photons is not None:
            truth = truth / np.percentile(truth, BRIGHTEST) * photons
        clean = image(truth, acquisition)
        if photons is None:
            raw = clean.astype(np.float32)
        else:
            raw, *_ = photograph(clean, "poisson", np.random.default_rng(1000))
        rows = acquisition.sr_shape(clean.shape)[0]
        return cls(truth[:rows].astype(np.float32), clean, raw, acquisition)

    @classmethod
    def of(cls, name: str, data: Path) -> Stack:
        """Make the stack of a volume; ``data`` is the folder of the files."""
        file, factor, photons = VOLUMES[name]
        if file is None:
            voxels, middle = phantom(0), CENTRE
        else:
            path, middle = file
            voxels = np.maximum(np.asarray(open_image(data / path).volume().compute(), np.float32), 0)
        starts = [int(place * (n - SIDE)) for place, n in zip(middle, voxels.shape, strict=True)]
        return cls.acquire(voxels[tuple(slice(start, start + SIDE) for start in starts)], factor, photons)
