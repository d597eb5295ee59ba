"""An image as a lazy array with axes, voxel size and unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np

from napari_cropeq.core.geometry import Acquisition, check_voxel_size, guess_axial
from napari_cropeq.errors import ArgumentError, ImageError, VoxelSizeError, WrongTypeError
from napari_cropeq.formats.chunk_cache import CAP, ChunkCache
from napari_cropeq.formats.metadata import PIXEL, ImageInfo
from napari_cropeq.formats.paths import is_url
from napari_cropeq.formats.watch.files import Watch
from napari_cropeq.short_repr import ShortRepr

COARSE_VOXELS = 2**26
REMOTE_VOXELS = 2**22  # of a coarser level at an address
CONNECTIONS = 8  # chunks of an image at an address that are read at the same time


@dataclass(frozen=True, repr=False)
class Image(ShortRepr):
    """An image as a lazy array: leading axes (t, c) first, the three spatial axes last."""

    data: da.Array  # in the order of `axes`
    axes: str  # 'zyx', 'czyx', 'tzyx' or 'tczyx'
    voxel_size: tuple[float, float, float] | None  # (z, y, x) in `unit`; None if the file does not store it
    unit: str  # 'micrometer', 'nanometer', 'millimeter', ... or 'pixel' if unknown
    translate: tuple[float, float, float]  # (z, y, x) world position of the first voxel's centre, in `unit`
    name: str  # file name without its image suffixes
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str | None, ...] = ()  # '#rrggbb'
    path: str | None = None
    time_step: float = 1.0  # in `time_unit`
    time_unit: str = PIXEL  # 'second', 'minute', ... or 'pixel' if unknown
    coarser: tuple[da.Array, ...] = ()  # further levels of the same extent, each coarser than the one before
    watch: Watch | None = field(default=None, compare=False)  # the files that are read; None for an image in memory
    missing: float | None = None  # what voxels of planes that the file lacks are read as; None if it lacks none
    scene: str = ""  # which image of a file with several this is; "" where its path says so, or there is one
    scenes: tuple[str, ...] = ()  # all images of the file, by name; empty if there is one

    def _title(self) -> str:
        return f"Image {self.name!r}"

    def _facts(self) -> dict[str, str]:
        shape = " × ".join(f"{axis} {length}" for axis, length in zip(self.axes, self.data.shape, strict=True))
        size = self.voxel_size and f"{' × '.join(f'{step:.4g}' for step in self.voxel_size)} {self.unit} (z, y, x)"
        facts = {"shape": f"{shape}, {self.data.dtype}", "voxel size": size or "not known"}
        if "c" in self.axes:
            facts["channels"] = ", ".join(self.channel_names) or str(self.n_channels)
        if self.coarser:
            facts["levels"] = str(len(self.levels))
        return facts | {"file": self.path or "in memory"}

    @property
    def levels(self) -> tuple[da.Array, ...]:
        """All levels, the finest first, with axes in the order of `axes`."""
        return (self.data, *self.coarser)

    @property
    def coarse(self) -> da.Array | None:
        """The finest of the coarser levels with volumes small enough to read quickly; None if there is none."""
        return next((level for level in self.coarser if math.prod(level.shape[-3:]) <= self.coarse_voxels), None)

    @property
    def coarse_voxels(self) -> int:
        """The most voxels of a volume that is read as a whole to be shown."""
        return min(COARSE_VOXELS, REMOTE_VOXELS) if self.remote else COARSE_VOXELS

    @property
    def threads(self) -> int:
        """How many chunks are best read at the same time."""
        return CONNECTIONS if self.remote else 1

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files that are read; none for an image in memory or at an address."""
        return () if self.path is None or self.remote else (self.path,)

    @property
    def remote(self) -> bool:
        """Whether it is at an address, so that reading waits for a server."""
        return is_url(self.path)

    @property
    def n_channels(self) -> int:
        """Number of channels; 1 without a channel axis."""
        return int(self.data.shape[self.axes.index("c")]) if "c" in self.axes else 1

    @property
    def n_times(self) -> int:
        """Number of time points; 1 without a time axis."""
        return int(self.data.shape[self.axes.index("t")]) if "t" in self.axes else 1

    @property
    def image(self) -> ImageInfo:
        """The metadata to write to a file; in pixels if the voxel size is not known."""
        return ImageInfo(
            axes=self.axes,
            voxel_size=self.voxel_size or (1.0, 1.0, 1.0),
            unit=self.unit if self.voxel_size else PIXEL,
            translate=self.translate,
            name=self.name,
            channel_names=self.channel_names,
            channel_colors=self.channel_colors,
            time_step=self.time_step,
            time_unit=self.time_unit,
        )

    def with_voxel_size(self, voxel_size: tuple[float, float, float]) -> Image:
        """Return the image with another voxel size (z, y, x), in its own unit or, if that is pixels, in micrometers.

        Raises
        ------
        VoxelSizeError
            If it is not three positive numbers.
        """
        check_voxel_size(voxel_size)
        return replace(self, voxel_size=voxel_size, unit="micrometer" if self.unit == PIXEL else self.unit)

    def volume(self, channel: int = 0, time: int = 0) -> da.Array:
        """Return one channel at one time point as a lazy array (z, y, x).

        Parameters
        ----------
        channel, time
            From 0.

        Returns
        -------
        dask.array.Array
            (z, y, x)

        Raises
        ------
        WrongTypeError, ArgumentError
            If there is no such channel or time point.
        """
        volume: da.Array = self.data[self.leading(channel, time)]
        return volume

    def leading(self, channel: int = 0, time: int = 0) -> tuple[int, ...]:
        """Return the indices of one channel at one time point along the leading axes.

        Raises
        ------
        WrongTypeError, ArgumentError
            If there is no such channel or time point.
        """
        asked = (("t", "time point", time, self.n_times), ("c", "channel", channel, self.n_channels))
        for _, word, number, count in asked:
            setting = word.removesuffix(" point")
            if not isinstance(number, Integral):
                raise WrongTypeError(
                    f"The {word} {number!r} is not a whole number.", "Give its number, from 0.", setting=setting
                )
            if not 0 <= number < count:
                choice = f"Choose one of 0 to {count - 1}." if count > 1 else "Choose 0."
                raise ArgumentError(f"{self.name} has no {word} {number}: it has {count}.", choice, setting=setting)
        return tuple(int(number) for axis, _, number, _ in asked if axis in self.axes)

    def check_unchanged(self) -> None:
        """Raise SourceChangedError if a file of the image has changed since it was opened."""
        if self.watch is not None:
            self.watch.check()

    def describe(self) -> dict[str, Any]:
        """Describe the image in JSON values.

        Returns
        -------
        dict
            name, axes, shape, dtype, voxel_size and translate (z, y, x), unit, channels, path; missing, if planes are;
            scene, if the path has several.
        """
        more: dict[str, Any] = {} if self.missing is None else {"missing": self.missing}
        if self.scene:
            more |= {"scene": self.scene}
        return more | {
            "name": self.name,
            "axes": self.axes,
            "shape": [int(size) for size in self.data.shape],
            "dtype": str(self.data.dtype),
            "voxel_size": None if self.voxel_size is None else list(self.voxel_size),
            "unit": self.unit,
            "translate": list(self.translate),
            "channels": list(self.channel_names),
            "path": self.path,
        }


def check_volume(data: Any, name: str) -> None:
    """Raise ImageError if an array cannot be an image volume; none of it is read.

    Parameters
    ----------
    data
        Anything with shape and dtype; the last three axes are spatial.
    name
        Name of the image for the message.

    Raises
    ------
    ImageError
        If it has fewer than three axes, an empty axis, or values that are not real numbers.
    """
    shape = tuple(int(size) for size in data.shape)
    text = "×".join(str(size) for size in shape) or "no axes"
    dtype = np.dtype(data.dtype)
    if len(shape) < 3:
        raise ImageError(f"{name} is {len(shape)}D ({text}), not a 3D stack.", "Open the whole stack.")
    if min(shape) < 1:
        raise ImageError(f"{name} is empty ({text}).", "Export it again.")
    if dtype.kind == "b":
        raise ImageError(f"{name} is a mask of true and false, not grey levels.", "Open the image itself.")
    if dtype.kind == "c":
        raise ImageError(f"{name} has complex numbers ({dtype}), not grey levels.", "Take their magnitude first.")
    if dtype.kind not in "iuf":
        raise ImageError(
            f"{name} has values of type {dtype}, not numbers (such as uint16 or float32).", "Convert them first."
        )


def acquisition_of(
    source: Image,
    voxel_size: tuple[float, float, float] | None = None,
    axial: int | None = None,
    fwhm: float | None = None,
    lateral_fwhm: float = 0.0,
) -> Acquisition:
    """Return how an image was sampled.

    Parameters
    ----------
    source : Image
        The image, with its voxel size and unit.
    voxel_size : (z, y, x), optional
        Replaces the voxel size of the image, in its unit.
    axial : int, optional
        Axial axis, an index into z, y, x; the axis with the largest step by default.
    fwhm : float, optional
        Width of the slice profile in the unit of the image; the axial step by default.
    lateral_fwhm : float, optional
        Width of the lateral point spread in the unit of the image; 0 if it is not known.

    Raises
    ------
    VoxelSizeError
        If the voxel size is not known.
    ValueError
        If this method cannot improve such an image.
    """
    if voxel_size is not None:
        source = source.with_voxel_size(voxel_size)
    size = source.voxel_size
    if size is None:
        raise VoxelSizeError(
            f"The voxel size of {source.name} is not known.",
            "Give the voxel size along z, y and x.",
            setting="unknown_voxel_size",
        )
    if fwhm == 0:  # for Acquisition 0 stands for the axial step; it checks all other values
        raise ArgumentError(
            f"The FWHM of the slice profile (0 {source.unit}) is not a positive length.",
            "Correct the FWHM.",
            setting="fwhm",
        )
    return Acquisition(size, guess_axial(size) if axial is None else axial, fwhm or 0.0, source.unit, lateral_fwhm)


def training_volumes(
    source: Image, channels: Sequence[int] | None = (0,), times: Sequence[int] | None = (0,)
) -> list[list[ChunkCache]]:
    """Return the time points (z, y, x) of each channel to train on, lazily; None stands for all.

    Raises
    ------
    ArgumentError
        If there is no such channel or time point.
    ImageError
        If the image has no volumes.
    """
    check_volume(source.data, source.name)
    chosen = range(source.n_channels) if channels is None else channels
    when = range(source.n_times) if times is None else times
    cap = CAP // (len(chosen) * len(when))
    return [[ChunkCache(source.volume(channel, time), cap, source.threads) for time in when] for channel in chosen]
