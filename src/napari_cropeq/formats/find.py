"""Find the images for a batch in folders, patterns and lists."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from napari_cropeq.errors import ImageError, MissingFileError, OutputExistsError
from napari_cropeq.formats.bioio import PLUGINS, has_plugin
from napari_cropeq.formats.ome_zarr.collection import every_image
from napari_cropeq.formats.ome_zarr.remote import RemoteStore
from napari_cropeq.formats.open import SUFFIXES
from napari_cropeq.formats.paths import place_of
from napari_cropeq.formats.provenance import read_provenance

__all__ = ["check_result", "find_images", "is_result", "is_zarr"]

PARTIAL = ".partial.ome.zarr"
ZARR = ("zarr.json", ".zgroup", ".zattrs")


def find_images(words: Iterable[str | Path], each: bool = True) -> list[Path | str]:
    """Return the images named by ``words``, each once, in the order of the words.

    Parameters
    ----------
    words : iterable of str or path
        Each is an image (a file, the folder of an OME-Zarr, or its address), a folder, or a pattern with ``*``, ``?``,
        ``[...]`` or ``**``. The images of a folder or pattern come in alphabetical order, without hidden files, results
        of this package and unfinished outputs; subfolders are not searched. A path that is named directly is always
        returned, whether it can be read or not.
    each : bool
        Whether to return, in the place of a plate or of a collection of several images, all fields of all its wells, or
        all its images.

    Raises
    ------
    MissingFileError
        If ``words`` is empty, or no image matches a pattern.
    ImageError
        If a folder has no image.
    """
    found: dict[Path | str, Path | str] = {}  # by absolute path, or address
    for word in words:
        place = place_of(word)
        for path in [place] if isinstance(place, str) else _named(place):
            for image in _parts(path) if each else [path]:
                found.setdefault(image if isinstance(image, str) else image.absolute(), image)
    if not found:
        raise MissingFileError("There are no images to work on.", "Name files, a folder or a pattern.")
    return list(found.values())


def is_result(path: Path) -> bool:
    """Return whether an image is a finished result of this package, by its own metadata."""
    return read_provenance(path) is not None


def check_result(path: Path) -> None:
    """Raise OutputExistsError if what has the name of an output is not a finished result of this package."""
    if not is_result(path):
        raise OutputExistsError(
            f"{path} exists, but it is not a result of this package.",
            "Move it away, or choose another name for the output.",
        )


def _named(path: Path) -> Iterator[Path]:
    if path.is_dir() and not is_zarr(path):
        images = _images(path.iterdir())
        if not images:
            known = ", ".join(SUFFIXES)
            raise ImageError(
                f"The folder {path} has no image to work on: a name ending in {known} that is not a result of this "
                "package.",
                "Choose another folder.",
            )
        yield from images
    elif not path.exists() and glob.has_magic(str(path)):
        images = _images(Path(name) for name in glob.glob(str(path), recursive=True))
        if not images:
            raise MissingFileError(f"No image matches the pattern {path}.", "Check its name and folder.")
        yield from images
    else:
        yield path


def _parts(place: Path | str) -> Iterator[Path | str]:
    """Yield the images of a plate or of a collection with several, and anything else as it is."""
    several: tuple[str, ...] = ()
    if isinstance(place, str) or place.is_dir():
        with suppress(Exception):  # what is wrong with it is reported when it is opened
            several = every_image(RemoteStore(place) if isinstance(place, str) else place)
    if len(several) < 2:
        yield place
        return
    for name in several:
        yield f"{place}/{name}" if isinstance(place, str) else place / name


def _images(paths: Iterable[Path]) -> list[Path]:
    """Return those of ``paths`` that are images but not results of this package, sorted."""
    return sorted(p for p in paths if _is_image(p) and not is_result(p))


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or name.endswith(PARTIAL):
        return False
    if not name.endswith(SUFFIXES):
        return path.suffix.lower() in PLUGINS and path.is_file() and has_plugin(name)
    inside = any(parent.name.lower().endswith(".zarr") for parent in path.parents)
    return not inside and path.is_dir() == name.endswith(".zarr")


def is_zarr(path: Path) -> bool:
    """Return whether a path is that of a Zarr group, by its name or its metadata."""
    return path.name.lower().endswith(".zarr") or any((path / name).is_file() for name in ZARR)
