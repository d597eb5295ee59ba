"""Super-resolution of one image with one model: any SR box of any channel and time point."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.devices.exactness import Exactness
from napari_cropeq.core.devices.transfer import convert
from napari_cropeq.core.geometry import Acquisition, Box, IntTriple, LeadingIndex, check_shape, guess_axial
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation, sample
from napari_cropeq.core.predict import Predictor, never
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Image, acquisition_of, check_volume
from napari_cropeq.formats.metadata import ImageInfo

__all__ = [
    "AUTOMATIC",
    "DTYPES",
    "SuperResolution",
    "axial_of",
    "check_dtype",
    "check_has_error",
    "with_error",
]

logger = logging.getLogger(__name__)

DTYPES = ("source", "float32")
AUTOMATIC = "both"
"""Planes of a result if none are named: their mean has less noise and is closer to the truth than one of them."""

FEW_LEVELS = 64  # between dark and bright: rounding changes an intensity of a tenth of the range by up to 8 %


def check_dtype(dtype: object) -> None:
    """Raise ArgumentError unless ``dtype`` is one of :data:`DTYPES`."""
    if dtype not in DTYPES:
        raise ArgumentError(f"Results cannot have the dtype {dtype!r}.", "Choose source or float32.", setting="dtype")


class Region:
    """A box of a volume (z, y, x) in memory, indexed like the volume.

    Parameters
    ----------
    shape : (z, y, x)
        Shape of the volume.
    box : Box
        Position of the voxels in the volume.
    voxels : array (z, y, x)
        The voxels of ``box``.
    """

    def __init__(self, shape: tuple[int, ...], box: Box, voxels: npt.NDArray[Any]) -> None:
        self.shape, self.dtype = shape, voxels.dtype
        self._box, self._voxels = box, voxels

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Return a box inside the region; ``key`` holds a slice for each axis."""
        inside = []
        for part, length, start, stop in zip(key, self.shape, self._box.start, self._box.stop, strict=True):
            low, high, step = part.indices(length)
            if low < start or high > stop:
                raise IndexError(f"{low}:{high} is not in {start}:{stop}, which is in memory")
            inside.append(slice(low - start, high - start, step))
        return self._voxels[tuple(inside)]


class SuperResolution:
    """Computes SR boxes of an image, in the dtype of the result.

    Parameters
    ----------
    source : Image
        The image, with any leading axes.
    model : Model
        A model trained for the factor of ``acquisition``.
    acquisition : Acquisition, optional
        How the image was sampled; by default from its voxel size.
    planes : 'z', 'y', 'x' or 'both', optional
        Lateral axis of the planes that go through the network, or the mean of both; automatic, which is both, if None.
    device : str
        See :func:`napari_cropeq.core.devices.device.choose_device`.
    dtype : str
        ``source`` (rounded and clipped) or ``float32``.
    parallel : bool
        Whether boxes may be computed in parallel where that is faster. Not in a window, because parallel threads
        make its thread wait.

    Attributes
    ----------
    shapes : TileShapes
        The best shapes of boxes to compute at once.
    predictor : callable
        Returns, for leading indices, the predictor of that volume's SR voxels before conversion.
    sample_digest : str
        Digest of a bounded, seeded sample of every channel, to recognise the voxels of the source.

    Raises
    ------
    ValueError
        If image and model do not fit each other; no tile has been computed then.
    """

    def __init__(
        self,
        source: Image,
        model: Model,
        acquisition: Acquisition | None = None,
        planes: str | None = None,
        device: str = "auto",
        dtype: str = "source",
        parallel: bool = True,
    ) -> None:
        check_dtype(dtype)
        check_volume(source.data, source.name)
        self.source, self.model, self._parallel = source, model, parallel
        acquisition = acquisition or acquisition_of(source, axial=axial_of(source, model))
        model.check_fits(acquisition)
        # The image does not say its slice profile; that of the training decides what the result looks like when imaged.
        self.acquisition = acquisition.with_profile_of(model.acquisition)
        self.leading_shape: tuple[int, ...] = tuple(int(n) for n in source.data.shape[:-3])
        shape = source.data.shape[-3:]
        check_shape(shape, self.acquisition, 1)
        self.sr_shape: IntTriple = self.acquisition.sr_shape(shape)
        self.dtype = np.dtype(np.float32) if dtype == "float32" else np.dtype(source.data.dtype)
        self._volumes = lru_cache(maxsize=4)(lambda leading: ChunkCache(source.data[leading], threads=source.threads))
        # Every channel is measured before any work, so that a constant channel is found now.
        self._normalisations: dict[int, Normalisation] = {}
        digest = hashlib.blake2b(digest_size=16)
        for leading in self.leading_indices:
            if self._channel(leading) not in self._normalisations:
                voxels = sample(self.volume(leading))
                self._normalisations[self._channel(leading)] = Normalisation.of(voxels)
                digest.update(np.ascontiguousarray(voxels).data)
        self.sample_digest = digest.hexdigest()
        first = self.leading_indices[0]
        scale = self._normalisations[self._channel(first)]
        self._predictor = Predictor(
            model.network,
            self.acquisition,
            self.volume(first),
            scale,
            planes or AUTOMATIC,
            device,
            correction=model.correction,
            error_tail=model.error_tail,
        )
        self.planes = self._predictor.planes
        canonical = self._predictor.canonical_tile
        self.shapes = TileShapes(self.acquisition.axial, self.planes, canonical)
        self.predictor = lru_cache(maxsize=4)(self._make_predictor)
        tiles = "any tiles" if canonical is None else f"tiles {canonical} (axial, plane, row)"
        logger.info("%s: SR grid %s (z, y, x), %s", source.name, self.sr_shape, tiles)

    @property
    def leading_indices(self) -> list[LeadingIndex]:
        """All indices along the leading axes."""
        return list(itertools.product(*(range(n) for n in self.leading_shape)))

    @property
    def normalisations(self) -> list[Normalisation]:
        """The intensity scale of each channel."""
        return [self._normalisations[channel] for channel in sorted(self._normalisations)]

    @property
    def exactness(self) -> Exactness:
        """Result of the check of the device."""
        return self._predictor.exactness

    @property
    def side_by_side(self) -> int:
        """Best number of boxes to compute in parallel, in bulk."""
        return self._predictor.side_by_side if self._parallel else 1

    @property
    def rounding(self) -> str:
        """A sentence that warns of rounding to integers, if there are few grey levels; otherwise empty."""
        levels = min(scale.high - scale.low for scale in self.normalisations)
        if self.dtype.kind == "f" or levels >= FEW_LEVELS:
            return ""
        return (
            f"The intensities span only {levels:.3g} grey levels, so rounding to {self.dtype} changes the mean of dim "
            "regions. Choose float32 to measure them."
        )

    @property
    def nbytes(self) -> int:
        """Size of the whole result in bytes, uncompressed."""
        return int(np.prod((*self.leading_shape, *self.sr_shape), dtype=np.int64)) * self.dtype.itemsize

    @property
    def sr_translate(self) -> tuple[float, float, float]:
        """World position of the first SR voxel's centre (z, y, x), in the source's unit."""
        parts = zip(self.source.translate, self.acquisition.sr_offset, self.acquisition.voxel_size, strict=True)
        z, y, x = (t + offset * step for t, offset, step in parts)
        return z, y, x

    @property
    def image(self) -> ImageInfo:
        """Metadata of the result for a file: its own grid, and the channels of the source."""
        source = self.source.image
        size, place = self.acquisition.sr_voxel_size, self.sr_translate
        windows = tuple((n.low, n.high) for n in self.normalisations)
        return replace(
            source,
            voxel_size=size,
            unit=self.acquisition.unit,
            translate=place,
            windows=windows,
            provenance=self.describe(),
        )

    def volume(self, leading: LeadingIndex) -> ChunkCache:
        """Return the lazy source volume (z, y, x) at the given leading indices."""
        return self._volumes(leading)

    def compute(
        self,
        leading: LeadingIndex,
        box: Box,
        stop: Callable[[], bool] = never,
        region: Region | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) in the result's dtype.

        Parameters
        ----------
        leading : tuple of int
            Channel and time point.
        box : Box
            SR voxels.
        stop : callable
            Called before every call of the network.
        region : Region, optional
            Source voxels that were read for a larger box; read from the source by default.
        dtype : dtype, optional
            That of :func:`with_error`, to get the expected errors as well.

        Raises
        ------
        StoppedError
            If ``stop`` returned True before the end.
        SourceChangedError
            If a file of the source has changed since it was opened: the voxels may mix two volumes.
        """
        predictor = self.predictor(leading)
        if region is not None:
            predictor = predictor.over(region, predictor.normalisation)
        if dtype is None or dtype.fields is None:
            voxels = predictor(box, stop, dtype=self.dtype)
        else:
            voxels = np.empty(box.shape, dtype)
            refined, voxels["error"] = predictor(box, stop, with_error=True)
            voxels["voxels"] = convert(refined, self.dtype)
        self.source.check_unchanged()
        return voxels

    def prefetch(self, leading: LeadingIndex, box: Box) -> Region:
        """Read all source voxels that ``box`` (SR voxels), or any part of it, needs."""
        volume = self.volume(leading)
        read = self.predictor(leading).source_box(box).intersect(Box.whole(volume.shape))
        assert read is not None
        return Region(volume.shape, read, np.asarray(volume[read.slices]))

    def interpolated(self, leading: LeadingIndex, box: Box) -> npt.NDArray[Any]:
        """Return the quintic interpolation of ``box`` (z, y, x) in the result's dtype."""
        return self.predictor(leading).interpolated(box, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Describe how the result is computed, in JSON values."""
        return {
            "source": self.source.describe(),
            "model": self.model.fingerprint,
            **({"correction": self.model.correction} if self.model.correction else {}),
            "factor": self.acquisition.factor,
            "axial": "zyx"[self.acquisition.axial],
            "planes": ["zyx"[p] for p in self.planes],
            "exactness": str(self.exactness),
            "training": dict(self.model.training),
            "provenance": dict(self.model.provenance),
        }

    def _make_predictor(self, leading: LeadingIndex) -> Predictor:
        return self._predictor.over(self.volume(leading), self._normalisations[self._channel(leading)])

    def _channel(self, leading: LeadingIndex) -> int:
        return leading[self.source.axes.index("c")] if "c" in self.source.axes[:-3] else 0


def axial_of(source: Image, model: Model) -> int:
    """Return the axial axis of an image: the one with the largest step, or the model's if no step is known."""
    size = source.voxel_size
    return model.acquisition.axial if size is None else guess_axial(size)


def check_has_error(model: Model) -> None:
    """Raise ArgumentError if a model cannot tell the expected error of its voxels."""
    if model.error_tail is None:
        raise ArgumentError(
            "The model has no expected error: it was made by an earlier version, or trained on few patches.",
            "Train it again, on more patches.",
            setting="error",
        )


def with_error(result: SuperResolution) -> np.dtype[Any]:
    """Return the dtype of a voxel with its expected absolute error: the fields ``voxels`` and ``error``.

    Raises
    ------
    ArgumentError
        If the model has no expected error.
    """
    check_has_error(result.model)
    return np.dtype([("voxels", result.dtype), ("error", np.float32)])
