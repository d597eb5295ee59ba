"""Where results go: their names, the unfinished store beside them, whether there is room, and what may be removed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = [
    "EXISTING",
    "FOLDER",
    "PARTIAL",
    "check_not_input",
    "check_ours",
    "check_output",
    "check_space",
    "claim",
    "escaped",
    "is_ours",
    "key_of",
    "old_of",
    "output_kind",
    "partial_of",
    "put_back",
    "remove",
    "remove_ours",
    "replace_folder",
    "truncated",
]

FOLDER = ".cropeq"
"""What a folder of ours holds from its first moment to its last: without it nothing is removed, whatever its name."""

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


def old_of(folder: Path) -> Path:
    """Return where an old output lies while the new one takes its name: in the ``folder`` of ours that becomes it."""
    return folder / FOLDER / "old"


def check_output(path: Path, existing: str = "refuse", inputs: Iterable[str | Path] = ()) -> None:
    """Raise if a result cannot be written to ``path``, or something stands there that is not to be touched.

    Parameters
    ----------
    path : path
        Where the result goes.
    existing : str
        One of :data:`EXISTING`.
    inputs : iterable of path
        What is read.

    Raises
    ------
    OSError
        If the folder is not there or not writable.
    FileExistsError
        If an output or an unfinished one stands there and ``existing`` is ``refuse``, or something that is not ours
        has the name of the unfinished one.
    ValueError
        If the name has an unknown suffix, ``existing`` is none of :data:`EXISTING`, or an input would be removed.
    """
    if existing not in EXISTING:
        raise ValueError(f"Got existing={existing!r}, expected one of {', '.join(EXISTING)}: choose one of these.")
    output_kind(path)
    check_space(path.parent, 0)
    check_not_input(path, inputs)
    if path.exists() and existing == "refuse":
        raise FileExistsError(
            f"Got {path}, which exists already: choose another name, or allow overwriting (--overwrite)."
        )
    if not (path.exists() and existing == "resume"):  # one that is complete needs no store
        check_ours(partial_of(path))
    if partial_of(path).exists() and existing == "refuse":
        raise FileExistsError(
            f"Got {path}, of which an unfinished run left {partial_of(path).name}: go on from it (--resume), or start "
            "anew (--overwrite)."
        )


def check_not_input(path: Path, inputs: Iterable[str | Path], name: str = "", remedy: str = "") -> None:
    """Raise ValueError if one of ``inputs`` is the output ``path``, lies in it, or where it is kept unfinished.

    Parameters
    ----------
    path : path
        The output.
    inputs : iterable of path
        What is read; links are followed.
    name : str
        Of what the output is.
    remedy : str
        What to do about it.
    """
    remedy = remedy or "choose another name for the output"
    for given in inputs:
        read = Path(key_of(Path(given).expanduser()))
        if read.is_relative_to(key_of(path)):
            of = f"the output of {name}" if name else "the output"
            raise ValueError(f"Got {path} as {of} and as an input, expected another name: {remedy}.")
        if read.is_relative_to(key_of(partial_of(path))):
            raise ValueError(
                f"Got {given} as an input, where the output {path.name} is kept until it is complete, expected another "
                f"name: {remedy}."
            )


def key_of(path: Path) -> str:
    """Return what two names of one file share, where capitals count as small letters as well."""
    return os.path.normcase(os.path.realpath(path))


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


def replace_folder(new: Path, final: Path, old: Path) -> None:
    """Rename ``new`` to ``final``, putting a folder or file that stands there to ``old``, in a folder of ours.

    There it stays, to be removed with that folder.
    """
    if not (new.is_dir() or final.is_dir()):
        os.replace(new, final)
        return
    remove(old)
    stands = os.path.lexists(final)
    if stands:
        os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        if stands:
            os.replace(old, final)
        raise


def put_back(folder: Path, final: Path) -> None:
    """Give what a kill has left in a ``folder`` of ours, by :func:`replace_folder`, its name again."""
    if os.path.lexists(old_of(folder)) and not os.path.lexists(final):
        os.replace(old_of(folder), final)


def is_ours(folder: Path) -> bool:
    """Return whether a folder may be removed: it bears our mark or, as a kill may leave it, holds nothing."""
    return folder.is_dir() and ((folder / FOLDER).is_dir() or not any(folder.iterdir()))


def check_ours(folder: Path) -> None:
    """Raise FileExistsError if something stands at ``folder`` that is not ours."""
    if os.path.lexists(folder) and not is_ours(folder):
        raise FileExistsError(
            f"Got {folder.name}, which holds no unfinished result of this package, in the place of one: move or remove "
            "it, or choose another name for the output."
        )


def claim(folder: Path) -> None:
    """Make a folder of ours with nothing in it but our mark.

    Raises
    ------
    FileExistsError
        If something stands there that is not ours.
    """
    check_ours(folder)
    remove_ours(folder)
    folder.mkdir(exist_ok=True)
    (folder / FOLDER).mkdir(exist_ok=True)


def remove_ours(folder: Path) -> None:
    """Remove a folder of ours, its mark last, so that a kill leaves nothing that cannot be told; never another's."""
    if not is_ours(folder):
        return
    for path in folder.iterdir():
        if path.name != FOLDER:
            remove(path)
    if all(path.name == FOLDER for path in folder.iterdir()):
        remove(folder / FOLDER)
    with suppress(OSError):
        folder.rmdir()


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def escaped(name: str) -> str:
    """Return a file name in which nothing is a pattern."""
    return re.sub(r"([*?[])", r"[\1]", name)


def truncated(name: str, needed: int, size: int) -> str:
    """Say that a file ends before its data do (sizes in bytes)."""
    return f"{name} is cut short: its image needs {needed} bytes, the file has {size}, so copy or export it again."
