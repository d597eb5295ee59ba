"""Where results go: their names, the unfinished store beside them, and whether there is room."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

__all__ = [
    "EXISTING",
    "PARTIAL",
    "check_output",
    "check_space",
    "escaped",
    "old_of",
    "output_kind",
    "partial_of",
    "remove",
    "replace_folder",
]

EXISTING = ("refuse", "resume", "overwrite")
"""What to do about an output, or an unfinished one, that stands there already."""

PARTIAL = ".partial"
_SUFFIXES = (".ome.zarr", ".zarr", ".ome.tiff", ".ome.tif")


def output_kind(path: Path) -> str:
    """Return ``.ome.zarr`` or ``.ome.tif``.

    Raises
    ------
    ValueError
        If the name ends in neither.
    """
    name = path.name.lower()
    if name.endswith((".ome.tif", ".ome.tiff")):
        return ".ome.tif"
    if name.endswith(".zarr"):
        return ".ome.zarr"
    raise ValueError(f"Got output {path.name!r}, expected a name ending in .ome.zarr or .ome.tif: rename it.")


def partial_of(path: Path) -> Path:
    """Return what a store is called until the output ``path`` is complete: an OME-Zarr that can be opened."""
    stem = path.name
    for suffix in _SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return path.with_name(f"{stem}{PARTIAL}.ome.zarr")


def old_of(path: Path) -> Path:
    """Return what an old output is called while the new one takes its name: nothing that a user would choose."""
    return path.with_name(f"{path.name}.cropeq-old")


def check_output(path: Path, existing: str = "refuse") -> None:
    """Raise if a result cannot be written to ``path``, or something stands there that is not to be touched.

    Raises
    ------
    OSError
        If the folder is not there or not writable.
    FileExistsError
        If an output or an unfinished one stands there and ``existing`` is ``refuse``.
    ValueError
        If the name has an unknown suffix, or ``existing`` is none of :data:`EXISTING`.
    """
    if existing not in EXISTING:
        raise ValueError(f"Got existing={existing!r}, expected one of {', '.join(EXISTING)}: choose one of these.")
    output_kind(path)
    check_space(path.parent, 0)
    if existing != "refuse":
        return
    if path.exists():
        raise FileExistsError(
            f"Got {path}, which exists already: choose another name, or allow overwriting (--overwrite)."
        )
    if partial_of(path).exists():
        raise FileExistsError(
            f"Got {path}, of which an unfinished run left {partial_of(path).name}: go on from it (--resume), or start "
            "anew (--overwrite)."
        )


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError if ``folder`` is no writable folder or has less than ``needed`` bytes free."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"Got the folder {folder}, which does not exist or is not writable: choose another.")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"Got {free / 1e9:.1f} GB free in {folder}, expected {needed / 1e9:.1f} GB for the result: "
            "make space or choose another disk."
        )


def replace_folder(new: Path, final: Path) -> None:
    """Rename ``new`` to ``final``, putting a folder or file that stands there out of the way until it is done."""
    if not (new.is_dir() or final.is_dir()):
        os.replace(new, final)
        return
    old = old_of(final)
    remove(old)
    stands = final.exists()
    if stands:
        os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        if stands:
            os.replace(old, final)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file, where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def escaped(name: str) -> str:
    """Return a file name in which nothing is a pattern."""
    return re.sub(r"([*?[])", r"[\1]", name)
