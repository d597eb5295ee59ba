"""Open a file, a folder or an address as an image."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import dask.array as da

from napari_cropeq.errors import ImageError, MissingFileError
from napari_cropeq.formats.axis_order import OrderedAxes, axis_order
from napari_cropeq.formats.bioio import read_with_bioio
from napari_cropeq.formats.chunk_cache import lazy_array
from napari_cropeq.formats.image import Image, check_volume
from napari_cropeq.formats.metadata import PIXEL, Metadata, Stored, named
from napari_cropeq.formats.nifti import read_nifti
from napari_cropeq.formats.ome_zarr.read import read_ome_zarr
from napari_cropeq.formats.ome_zarr.remote import RemoteStore, RemoteWatch
from napari_cropeq.formats.paths import place_of
from napari_cropeq.formats.tiff import read_tiff
from napari_cropeq.formats.watch.files import Watch

__all__ = ["SUFFIXES", "label_of", "name_of", "open_image", "scenes_of"]

logger = logging.getLogger(__name__)

_READERS: dict[str, Callable[[Path, Watch, float | None, str | int | None], Stored]] = {
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


def open_image(
    path: str | os.PathLike[str], allow_missing: float | None = None, scene: str | int | None = None
) -> Image:
    """Open an image as a lazy array; its voxels are read when they are needed.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF or ImageJ file, a NIfTI file, the folder of an OME-Zarr image, or its address, which starts
        with ``http://``, ``https://``, ``s3://`` or ``gs://``. With bioio also CZI, LIF, ND2, and whatever its plugins
        read.
    allow_missing : float, optional
        An OME-TIFF may lack planes, for example after an acquisition that was aborted. It is refused by default; with
        a value such as 0, all voxels of the missing planes are read as this value.
    scene : str or int, optional
        Name or number, from 0, of the image to open in a file that has several; by default the first. For a plate it is
        the path of a field, such as ``B/3/0``, and has no default.

    Returns
    -------
    Image
        The image with its levels.

    Raises
    ------
    WrongTypeError, MissingFileError
        If it is not a path, or there is no such file.
    ImageError
        If the file is of an unknown type, damaged, cut short, lacks planes, or has no 3D grey-level image; or it is a
        plate and no field is chosen.
    ArgumentError
        If the image cannot have the value of ``allow_missing``, or there is no such scene.
    AccessError
        If a server does not answer.
    MissingPackageError
        If a package that reads the file is not installed.
    """
    place = place_of(path)
    stored, watch = _stored(place, allow_missing, scene)
    several = f"{len(stored.scenes)} images ({named(stored.scenes)})" if scene is None and stored.scenes else ""
    try:
        image = _image(stored, watch, place, stored.scene if scene is not None else "")
    except ImageError as error:
        if not several or error.setting:
            raise
        problem = f"{error.problem} It is the first of {several}."
        raise ImageError(problem, "Choose another one by its name or number.", setting="scene") from error
    if several:
        logger.warning("%s has %s; the first is read. Choose another with --scene.", watch.name, several)
    return image


def scenes_of(path: str | os.PathLike[str], allow_missing: float | None = None) -> tuple[str, ...]:
    """Return the names of all images of a file or collection; none if there is only one.

    Parameters
    ----------
    path, allow_missing
        As for :func:`open_image`, which raises the same errors.
    """
    return _stored(place_of(path), allow_missing, None)[0].scenes


def _stored(place: Path | str, allow_missing: float | None, scene: str | int | None) -> tuple[Stored, Watch]:
    """Return an image as it is stored, and the watch over its files."""
    if isinstance(place, str):
        store = RemoteStore(place)
        watch: Watch = RemoteWatch(place.rsplit("/", 1)[-1], store)
        return read_ome_zarr(store, watch, scene), watch
    if not place.exists():
        raise MissingFileError(f"There is no file {place}.", "Check its name and folder.")
    watch = Watch(place.name, [] if place.is_dir() else [place])  # before anything is read
    return _read(place, watch, allow_missing, scene), watch


def _image(stored: Stored, watch: Watch, place: Path | str, chosen: str) -> Image:
    """Return an image that is stored at a place; ``chosen`` is its scene, if the user has chosen one."""
    levels, axes = _levels(stored, watch)
    metadata: Metadata = stored.metadata
    whole = place if isinstance(place, str) else str(place.absolute())
    if stored.scene and (isinstance(place, str) or place.is_dir()):  # an image in a Zarr group has a path of its own
        whole, stored = f"{whole}/{stored.scene}", replace(stored, scene="")
    return Image(
        data=levels[0],
        axes=axes,
        voxel_size=metadata.voxel_size,
        unit=metadata.unit if metadata.voxel_size is not None else PIXEL,
        translate=metadata.translate if metadata.voxel_size is not None else (0.0, 0.0, 0.0),
        name=name_of(place, chosen),
        channel_names=metadata.channel_names,
        channel_colors=metadata.channel_colors,
        path=whole,
        time_step=metadata.time_step,
        time_unit=metadata.time_unit,
        coarser=tuple(_ever_coarser(levels)),
        watch=watch,
        missing=stored.missing,
        scene=stored.scene,
        scenes=stored.scenes,
    )


def _read(path: Path, watch: Watch, allow_missing: float | None, scene: str | int | None) -> Stored:
    """Read the metadata of a file or folder."""
    suffix = _suffix(path)
    if path.is_dir():
        return read_ome_zarr(path, watch, scene)
    if suffix in _READERS:
        return _READERS[suffix](path, watch, allow_missing, scene)
    stored = read_with_bioio(path, watch, scene)
    if stored is not None:
        return stored
    raise ImageError(
        f"{path.name} is of an unknown type. Known types are {', '.join(SUFFIXES)}.",
        "Save it as OME-TIFF or OME-Zarr. With the extra bioio, CZI, LIF, ND2, IMS and others are read as well.",
    )


def _levels(stored: Stored, watch: Watch) -> tuple[list[da.Array], str]:
    """Return the levels as lazy arrays with their axes in order, and the letters of the axes."""
    order, fixed, axes = axis_order(stored, watch.name)
    arrays = [
        (OrderedAxes(level.array, order, fixed, watch), [level.chunks[axis] for axis in order])
        for level in (stored, *(level for level in stored.coarser if level.array.dtype == stored.array.dtype))
    ]
    check_volume(arrays[0][0], watch.name)
    return [lazy_array(array, chunks, watch.name) for array, chunks in arrays], axes


def _ever_coarser(levels: Sequence[da.Array]) -> Iterator[da.Array]:
    """Yield the levels after the first that show the same image in fewer and fewer voxels."""
    last = levels[0]
    for level in levels[1:]:
        alike = level.shape[:-3] == last.shape[:-3] and level.dtype == last.dtype
        smaller = all(0 < m <= n for m, n in zip(level.shape[-3:], last.shape[-3:], strict=True))
        if alike and smaller and level.shape != last.shape:
            yield level
            last = level


def label_of(place: str | Path) -> str:
    """Return the name of a file, or of a Zarr group with the path inside it, such as ``plate.zarr/B/3/0``."""
    parts = str(place).replace("\\", "/").rstrip("/").split("/")
    first = max((n for n, part in enumerate(parts) if part.lower().endswith(_FOLDERS)), default=len(parts) - 1)
    return "/".join(parts[first:])


def name_of(place: str | Path, scene: str = "") -> str:
    """Return the name of an image: that of its file or Zarr group without suffix, and what was chosen of it."""
    first, *inside = label_of(place).split("/")
    stem = first[: len(first) - len(_suffix(Path(first)))] or first
    return "_".join([stem, *inside, *([scene.replace("/", "_")] if scene else ())])


def _suffix(path: Path) -> str:
    """Return the longest image suffix of a file name, or its last suffix if it has no image suffix."""
    name = path.name.lower()
    return max((known for known in SUFFIXES if name.endswith(known)), key=len, default=path.suffix.lower())
