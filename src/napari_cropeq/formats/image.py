"""Files as lazy arrays with axes, voxel size and units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from napari_cropeq.core.geometry import Acquisition, guess_axial
from napari_cropeq.formats.axis_order import OrderedAxes, axis_order
from napari_cropeq.formats.chunk_cache import CAP, ChunkCache
from napari_cropeq.formats.metadata import PIXEL, ImageInfo, Metadata
from napari_cropeq.formats.nifti import read_nifti
from napari_cropeq.formats.ome_zarr import read_ome_zarr
from napari_cropeq.formats.tiff import read_tiff
from napari_cropeq.short_repr import ShortRepr

_READERS = {
    ".ome.tif": read_tiff,
    ".ome.tiff": read_tiff,
    ".ome.btf": read_tiff,
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".btf": read_tiff,
    ".tf8": read_tiff,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
}
_FOLDERS = (".ome.zarr", ".zarr")
SUFFIXES = (*_READERS, *_FOLDERS)
COARSE_VOXELS = 2**26


@dataclass(frozen=True, repr=False)
class Image(ShortRepr):
    """One image as a lazy array: leading axes (t, c) first, the three spatial axes last."""

    data: da.Array  # in the order of `axes`
    axes: str  # 'zyx', 'czyx', 'tzyx' or 'tczyx'
    voxel_size: tuple[float, float, float] | None  # (z, y, x) in `unit`; None where the file does not say
    unit: str  # 'micrometer', 'nanometer', 'millimeter', ... or 'pixel' where unknown
    translate: tuple[float, float, float]  # (z, y, x) world position of the first voxel's centre, in `unit`
    name: str  # file name without its image suffixes
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str | None, ...] = ()  # '#rrggbb'
    path: str | None = None
    time_step: float = 1.0  # in `time_unit`
    time_unit: str = PIXEL  # 'second', 'minute', ... or 'pixel' where unknown
    coarser: tuple[da.Array, ...] = ()  # further levels of the same extent, each coarser than the last

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
        """All levels, the finest first, in the order of `axes`; one where the file holds no others."""
        return (self.data, *self.coarser)

    @property
    def coarse(self) -> da.Array | None:
        """The finest of the coarser levels of which one volume is read in a moment, None where none is."""
        return next((level for level in self.coarser if math.prod(level.shape[-3:]) <= COARSE_VOXELS), None)

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of what is read; none where it is in memory."""
        return () if self.path is None else (self.path,)

    @property
    def n_channels(self) -> int:
        """Number of channels, 1 where there is no such axis."""
        return int(self.data.shape[self.axes.index("c")]) if "c" in self.axes else 1

    @property
    def n_times(self) -> int:
        """Number of time points, 1 where there is no such axis."""
        return int(self.data.shape[self.axes.index("t")]) if "t" in self.axes else 1

    @property
    def image(self) -> ImageInfo:
        """What a file says of the image; it lies in pixels where its voxel size is not known."""
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
        """Return the image with another voxel size (z, y, x), in its unit or, where it has none, in micrometers."""
        return replace(self, voxel_size=voxel_size, unit="micrometer" if self.unit == PIXEL else self.unit)

    def volume(self, channel: int = 0, time: int = 0) -> da.Array:
        """Take one channel at one time as a lazy array (z, y, x).

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
        ValueError
            If there is no such channel or time point.
        """
        volume: da.Array = self.data[self.leading(channel, time)]
        return volume

    def leading(self, channel: int = 0, time: int = 0) -> tuple[int, ...]:
        """Return the indices of one channel at one time along the leading axes.

        Raises
        ------
        ValueError
            If there is no such channel or time point.
        """
        asked = (("t", "time point", time, self.n_times), ("c", "channel", channel, self.n_channels))
        for _, word, number, count in asked:
            if not 0 <= number < count:
                raise ValueError(
                    f"{self.name} has no {word} {number}: it has {count}, so ask for one of 0 to {count - 1}."
                )
        return tuple(number for axis, _, number, _ in asked if axis in self.axes)

    def describe(self) -> dict[str, Any]:
        """Say what the image is, in values that JSON can hold.

        Returns
        -------
        dict
            name, axes, shape, dtype, voxel_size and translate (z, y, x), unit, channels, path.
        """
        return {
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


def open_image(path: str | Path) -> Image:
    """Open an image file as a lazy array; its pixels are read when they are needed.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF or ImageJ file, a NIfTI file, or the folder of an OME-Zarr image.

    Returns
    -------
    Image
        Its first image, with its levels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of an unknown type, damaged, cut short, or holds no 3D grey-level image.
    ImportError
        If reading the file needs a package that is missing.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}: check its name and folder.")
    suffix = _suffix(path)
    if path.is_dir():
        stored = read_ome_zarr(path)
    elif suffix in _READERS:
        stored = _READERS[suffix](path)
    else:
        raise ValueError(
            f"{path.name} is of an unknown type, expected one of {', '.join(SUFFIXES)}: "
            "save it as OME-TIFF or OME-Zarr."
        )
    name = path.name[: len(path.name) - len(suffix)] or path.name
    order, fixed, axes = axis_order(stored, path.name)
    levels = [
        lazy_array(OrderedAxes(level.array, order, fixed, path.name), tuple(level.chunks[axis] for axis in order))
        for level in (stored, *stored.coarser)
    ]
    check_volume(levels[0], path.name)
    metadata: Metadata = stored.metadata
    return Image(
        data=levels[0],
        axes=axes,
        voxel_size=metadata.voxel_size,
        unit=metadata.unit if metadata.voxel_size is not None else PIXEL,
        translate=metadata.translate if metadata.voxel_size is not None else (0.0, 0.0, 0.0),
        name=name,
        channel_names=metadata.channel_names,
        channel_colors=metadata.channel_colors,
        path=str(path.absolute()),
        time_step=metadata.time_step,
        time_unit=metadata.time_unit,
        coarser=tuple(_ever_coarser(levels)),
    )


def _ever_coarser(levels: Sequence[da.Array]) -> Iterator[da.Array]:
    """Give the levels beyond the first that show the same in fewer voxels each."""
    last = levels[0]
    for level in levels[1:]:
        alike = level.shape[:-3] == last.shape[:-3] and level.dtype == last.dtype
        smaller = all(0 < m <= n for m, n in zip(level.shape[-3:], last.shape[-3:], strict=True))
        if alike and smaller and level.shape != last.shape:
            yield level
            last = level


def lazy_array(array: Any, chunks: tuple[int, ...]) -> da.Array:
    """Wrap an array-like, of which Dask then asks for no more than the boxes it needs."""
    # Without `meta` Dask reads a voxel to learn the type; without `fancy` it reads whole chunks and then cuts them.
    meta = np.empty((0,) * len(array.shape), array.dtype)
    lazy: da.Array = da.from_array(array, chunks=chunks, name=False, asarray=True, fancy=True, meta=meta)
    return lazy


def _suffix(path: Path) -> str:
    """Find the longest image suffix of a file name; its last suffix where there is none."""
    name = path.name.lower()
    return max((known for known in SUFFIXES if name.endswith(known)), key=len, default=path.suffix.lower())


def check_volume(data: Any, name: str) -> None:
    """Refuse an array that cannot be an image volume, before any of it is read.

    Parameters
    ----------
    data
        Anything with shape and dtype; the last three axes are spatial.
    name
        What to call it in the message.

    Raises
    ------
    ValueError
        If it has fewer than three axes, an empty one, or values that are no real numbers.
    """
    shape = tuple(int(size) for size in data.shape)
    text = "×".join(str(size) for size in shape) or "no axes"
    dtype = np.dtype(data.dtype)
    if len(shape) < 3:
        raise ValueError(f"{name}: got {len(shape)}D data ({text}), expected a 3D stack: open the whole stack.")
    if 0 in shape:
        raise ValueError(f"{name}: got an empty array ({text}), expected a 3D stack: export it again.")
    if dtype.kind == "b":
        raise ValueError(f"{name}: got a mask of true and false, expected grey levels: open the image itself.")
    if dtype.kind == "c":
        raise ValueError(f"{name}: got complex numbers ({dtype}), expected grey levels: take their magnitude first.")
    if dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: got values of type {dtype}, expected numbers (such as uint16 or float32): convert them first."
        )


def acquisition_of(
    source: Image,
    voxel_size: tuple[float, float, float] | None = None,
    axial: int | None = None,
    fwhm: float | None = None,
    lateral_fwhm: float = 0.0,
) -> Acquisition:
    """Return how a source was sampled.

    Parameters
    ----------
    source : Image
        Gives voxel size and unit.
    voxel_size : (z, y, x), optional
        Instead of the source's own, in its unit.
    axial : int, optional
        Axial axis, an index into z, y, x; the one of the largest step by default.
    fwhm : float, optional
        Width of the slice profile in the source's unit; the axial step by default.
    lateral_fwhm : float, optional
        Width of the lateral point spread in the source's unit; 0 where it is not known.

    Raises
    ------
    ValueError
        If the voxel size is unknown or no acquisition this method can improve.
    """
    if voxel_size is not None:
        source = source.with_voxel_size(voxel_size)
    size = source.voxel_size
    if size is None:
        raise ValueError(
            f"Got {source.name}, which does not say its voxel size, expected one along z, y and x: "
            "give it (command line: --voxel-size Z Y X)."
        )
    if fwhm is not None and not fwhm > 0:
        raise ValueError(f"Got FWHM {fwhm:g}, expected a positive length: give the width of the slice profile.")
    return Acquisition(size, guess_axial(size) if axial is None else axial, fwhm or 0.0, source.unit, lateral_fwhm)


def training_volumes(
    source: Image, channels: Sequence[int] | None = (0,), times: Sequence[int] | None = (0,)
) -> list[list[ChunkCache]]:
    """Return the time points (z, y, x) of each channel to train on, lazily; None stands for all.

    Raises
    ------
    ValueError
        If there is no such channel or time point, or the source holds no volumes.
    """
    check_volume(source.data, source.name)
    chosen = range(source.n_channels) if channels is None else channels
    when = range(source.n_times) if times is None else times
    cap = CAP // (len(chosen) * len(when))
    return [[ChunkCache(source.volume(channel, time), cap) for time in when] for channel in chosen]
