"""One source and one model: any SR box of any channel and time point."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.exactness import Exactness
from napari_cropeq.core.geometry import Acquisition, Box, IntTriple, LeadingIndex, check_shape, guess_axial
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation, sample
from napari_cropeq.core.predict import Predictor, convert, never
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Image, acquisition_of, check_volume
from napari_cropeq.formats.metadata import ImageInfo

__all__ = [
    "DTYPES",
    "SuperResolution",
    "axial_of",
]

DTYPES = ("source", "float32")


class Region:
    """A box of a volume (z, y, x) in memory, which stands for the volume where it lies.

    Parameters
    ----------
    shape : (z, y, x)
        Of the volume.
    box : Box
        Where the voxels lie.
    voxels : array (z, y, x)
        Of ``box``.
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
    """Computes SR boxes of a source, in the dtype of the result.

    Parameters
    ----------
    source : Image
        With any leading axes.
    model : Model
        Trained for the factor of ``acquisition``.
    acquisition : Acquisition, optional
        Grid of the source; from the source and the model's axial axis by default.
    planes, device : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`.
    dtype : str
        ``source`` (rounded and clipped) or ``float32``.
    parallel : bool
        Whether boxes may be computed side by side where that is quicker; in a window they may not, since threads that
        take turns with each other let the window's wait.

    Attributes
    ----------
    shapes : TileShapes
        Which boxes are best computed at once.
    predictor : callable
        Gives, for leading indices, what computes the SR voxels of that volume before they are converted.
    sample_digest : str
        Tells the voxels of the source from others', by a bounded, seeded sample of every channel.

    Raises
    ------
    ValueError
        If source and model do not fit each other, before any tile is computed.
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
        if dtype not in DTYPES:
            raise ValueError(f"Got dtype {dtype!r}, expected source or float32: choose one of these.")
        check_volume(source.data, source.name)
        self.source, self.model, self._parallel = source, model, parallel
        self.acquisition = acquisition or acquisition_of(source, axial=axial_of(source, model))
        model.check_fits(self.acquisition)
        self.leading_shape: tuple[int, ...] = tuple(int(n) for n in source.data.shape[:-3])
        shape = source.data.shape[-3:]
        check_shape(shape, self.acquisition, 1)
        self.sr_shape: IntTriple = self.acquisition.sr_shape(shape)
        self.dtype = np.dtype(np.float32) if dtype == "float32" else np.dtype(source.data.dtype)
        self._bricks = lru_cache(maxsize=4)(lambda leading: ChunkCache(source.data[leading]))
        # Every channel is measured before any work: a constant one is found now.
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
        self._predictor = Predictor(model.network, self.acquisition, self.volume(first), scale, planes, device)
        self.planes = self._predictor.planes
        canonical = None if self.exactness.bit_exact else self._predictor.canonical_tile
        self.shapes = TileShapes(self.acquisition.axial, self.planes, canonical)
        self.predictor = lru_cache(maxsize=4)(self._make_predictor)

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
        """What the check of the device found."""
        return self._predictor.exactness

    @property
    def side_by_side(self) -> int:
        """How many boxes are best computed at the same time, in bulk."""
        return self._predictor.side_by_side if self._parallel else 1

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
        """What a file says of the result: on its own grid, its channels those of the source."""
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
        """Return the source volume (z, y, x) at ``lead``, lazily."""
        return self._bricks(leading)

    def compute(
        self, leading: LeadingIndex, box: Box, stop: Callable[[], bool] = never, region: Region | None = None
    ) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) in the result's dtype.

        Parameters
        ----------
        leading : tuple of int
            Channel and time point.
        box : Box
            SR voxels.
        stop : callable
            Asked before every call of the network.
        region : Region, optional
            What has been read of the source for a larger box; the source by default.

        Raises
        ------
        StoppedError
            If ``stop`` returned True before the end.
        """
        predictor = self.predictor(leading)
        if region is not None:
            predictor = predictor.over(region, predictor.normalisation)
        return convert(predictor(box, stop), self.dtype)

    def prefetch(self, leading: LeadingIndex, box: Box) -> Region:
        """Read all that the SR voxels of ``box``, or of parts of it, are made of."""
        volume = self.volume(leading)
        read = self.predictor(leading).source_box(box).intersect(Box.whole(volume.shape))
        assert read is not None
        return Region(volume.shape, read, np.asarray(volume[read.slices]))

    def interpolated(self, leading: LeadingIndex, box: Box) -> npt.NDArray[Any]:
        """Return the quintic interpolation of ``box`` (z, y, x) in the result's dtype."""
        return convert(self.predictor(leading).interpolated(box), self.dtype)

    def describe(self) -> dict[str, Any]:
        """Return what decides the result, as JSON values."""
        return {
            "source": self.source.describe(),
            "model": self.model.fingerprint,
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
    """Return the axial axis of a sibling: the one of its largest step, the model's where there is none."""
    size = source.voxel_size
    return model.acquisition.axial if size is None else guess_axial(size)
