"""Which images a batch works on: those of folders, patterns and lists."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tifffile import TiffFile

from napari_cropeq.formats.image import SUFFIXES

__all__ = ["find_images", "is_result"]

MARK = "napari-cropeq"
PARTIAL = ".partial.ome.zarr"
ZARR = ("zarr.json", ".zgroup", ".zattrs")


def find_images(words: Iterable[str | Path]) -> list[Path]:
    """Return the images that ``words`` name, each once, in the order of the words.

    Parameters
    ----------
    words : iterable of str or path
        Each is an image (a file, or the folder of an OME-Zarr), a folder, or a pattern with ``*``, ``?``, ``[...]`` or
        ``**``. Of a folder and a pattern the images are taken in alphabetical order, without hidden files, results of
        ours and what is unfinished; a folder's own folders are not entered. What is named itself is
        taken as it is, whether it can be read or not.

    Raises
    ------
    FileNotFoundError
        If nothing is named, or a pattern fits no image.
    ValueError
        If a folder holds no image.
    """
    found: dict[Path, Path] = {}  # each by where it really lies
    for word in words:
        for path in _named(Path(word).expanduser()):
            found.setdefault(path.absolute(), path)
    if not found:
        raise FileNotFoundError("Got no images, expected at least one: name files, a folder or a pattern.")
    return list(found.values())


def is_result(path: Path) -> bool:
    """Return whether an image is a finished result of ours, as it says itself."""
    try:
        if path.is_dir():
            return MARK in json.loads((path / "zarr.json").read_text())["attributes"]
        if path.name.lower().endswith((".tif", ".tiff")):
            with TiffFile(path) as file:
                return f'Namespace="{MARK}"' in str(file.pages.first.description)
    except Exception:  # noqa: BLE001 (what is wrong with an image is told when it is opened)
        pass
    return False


def _named(path: Path) -> Iterator[Path]:
    if path.is_dir() and not _is_zarr(path):
        images = _images(path.iterdir())
        if not images:
            known = ", ".join(SUFFIXES)
            raise ValueError(
                f"Got the folder {path}, which holds no image to work on, expected names ending in {known} that are no "
                "results: choose another."
            )
        yield from images
    elif not path.exists() and glob.has_magic(str(path)):
        images = _images(Path(name) for name in glob.glob(str(path), recursive=True))
        if not images:
            raise FileNotFoundError(f"Got the pattern {path}, which fits no image: check its name and folder.")
        yield from images
    else:
        yield path


def _images(paths: Iterable[Path]) -> list[Path]:
    """Return those of ``paths`` that a batch is meant to work on, sorted."""
    return sorted(p for p in paths if _is_image(p) and not is_result(p))


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or name.endswith(PARTIAL) or not name.endswith(SUFFIXES):
        return False
    inside = any(parent.name.lower().endswith(".zarr") for parent in path.parents)
    return not inside and path.is_dir() == name.endswith(".zarr")


def _is_zarr(path: Path) -> bool:
    return path.name.lower().endswith(".zarr") or any((path / name).is_file() for name in ZARR)
