"""Outputs: their names, their unfinished stores, free disk space, and which folders may be removed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from napari_cropeq.core.whole_file import path_of, remove_file, rename, sync_folder
from napari_cropeq.errors import AccessError, ArgumentError, OutputExistsError

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
    "is_url",
    "key_of",
    "old_of",
    "output_kind",
    "partial_of",
    "place_of",
    "put_back",
    "remove",
    "remove_ours",
    "replace_folder",
    "truncated",
]

FOLDER = ".cropeq"
"""Marks every folder that this package makes, from first to last: a folder without it is never removed."""

EXISTING = ("refuse", "resume", "overwrite")
"""Choices for an output, complete or unfinished, that exists already."""

PARTIAL = ".partial"
LONGEST = 259
"""Characters of a path, where Windows does not allow more."""

INSIDE = 80
"""Characters of the longest path inside a store: level, chunk, and the random name of an incomplete file."""

_ADDRESS = re.compile(r"(https?|s3|gs):[/\\]+(.+)", re.IGNORECASE)
_SCHEMES = ("http://", "https://", "s3://", "gs://")
_SUFFIXES = (".ome.zarr", ".zarr", ".ome.tiff", ".ome.tif")


def is_url(place: object) -> bool:
    """Return whether this is the address of an image, not the path of a file."""
    return isinstance(place, str) and place.lower().startswith(_SCHEMES)


def place_of(place: object) -> Path | str:
    """Return where a user says that an image is: an address as it is, anything else as a path.

    Raises
    ------
    WrongTypeError
        If it is neither.
    ArgumentError
        If it is an address of another kind.
    """
    address = _ADDRESS.fullmatch(str(place))  # also of a Path, which has taken one of two slashes for superfluous
    if address:
        scheme, rest = address.groups()
        return f"{scheme.lower()}://" + rest.replace("\\", "/").rstrip("/")
    if isinstance(place, str) and re.match(r"[a-z]{2,}://", place, re.IGNORECASE):
        raise ArgumentError(
            f"The address {place} cannot be read.", "Addresses start with http://, https://, s3:// or gs://."
        )
    return path_of("path", place, "Give the name of an image file.")


def output_kind(path: Path) -> str:
    """Return ``.ome.zarr`` or ``.ome.tif``.

    Raises
    ------
    ArgumentError
        If the name ends in neither.
    """
    name = path.name.lower()
    if name.endswith((".ome.tif", ".ome.tiff")):
        return ".ome.tif"
    if name.endswith(".zarr"):
        return ".ome.zarr"
    raise ArgumentError(f"The output name {path.name!r} does not end in .ome.zarr or .ome.tif.", "Rename it.")


def partial_of(path: Path) -> Path:
    """Return the path of the store, a readable OME-Zarr, until the output ``path`` is complete."""
    stem = path.name
    for suffix in _SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return path.with_name(f"{stem}{PARTIAL}.ome.zarr")


def old_of(folder: Path) -> Path:
    """Return where the old output is kept, inside the new ``folder``, while the new one takes its name."""
    return folder / FOLDER / "old"


def check_output(path: Path, existing: str = "refuse", inputs: Iterable[str | Path] = ()) -> None:
    """Raise if a result cannot be written to ``path``, or something there must not be replaced.

    Parameters
    ----------
    path : path
        The output.
    existing : str
        One of :data:`EXISTING`.
    inputs : iterable of path
        Files that are read.

    Raises
    ------
    AccessError
        If the folder does not exist or is not writable, or the path is too long for Windows.
    OutputExistsError
        If a complete or unfinished output exists and ``existing`` is ``refuse``, or something that this package has
        not made has the name of the unfinished output.
    ArgumentError
        If the name has an unknown suffix, ``existing`` is none of :data:`EXISTING`, or an input would be removed.
    """
    if existing not in EXISTING:
        raise ArgumentError(
            f"The value {existing!r} of existing is not known.", f"Choose one of {', '.join(EXISTING)}."
        )
    output_kind(path)
    check_length(path)
    check_space(path.parent, 0)
    check_not_input(path, inputs)
    if path.exists() and existing == "refuse":
        raise OutputExistsError(
            f"{path} exists already.",
            'Choose another name, or replace it with existing="overwrite".',
            setting="existing",
        )
    if not (path.exists() and existing == "resume"):  # a complete output needs no store
        check_ours(partial_of(path))
    if partial_of(path).exists() and existing == "refuse":
        raise OutputExistsError(
            f"An unfinished run left {partial_of(path).name} for the output {path}.",
            'Complete it with existing="resume", or start again with existing="overwrite".',
            setting="unfinished",
        )


def check_length(path: Path) -> None:
    """Raise AccessError if the files of an output would have paths that are too long for Windows."""
    length = len(os.path.abspath(partial_of(path)))
    if sys.platform == "win32" and length + INSIDE > LONGEST and not _long_paths():
        raise AccessError(
            f"The path {path} has {len(os.path.abspath(path))} characters, which leaves too few of the {LONGEST} that "
            "Windows allows for the files inside the output.",
            "Choose a folder with a shorter path, or allow long paths in Windows.",
        )


def _long_paths() -> bool:
    """Return whether Windows allows this process paths of more than 260 characters."""
    import ctypes

    with suppress(AttributeError, OSError):  # an old Windows
        return bool(ctypes.windll.ntdll.RtlAreLongPathsEnabled())  # type: ignore[attr-defined, unused-ignore]
    return False


def check_not_input(path: Path, inputs: Iterable[str | Path], name: str = "", remedy: str = "") -> None:
    """Raise ArgumentError if one of ``inputs`` is, or lies in, the output ``path`` or its unfinished store.

    Parameters
    ----------
    path : path
        The output.
    inputs : iterable of path
        Files that are read; links are followed.
    name : str
        Name of the image whose output this is.
    remedy : str
        What to do about it, a whole sentence.
    """
    remedy = remedy or "Choose another name for the output."
    for given in inputs:
        read = Path(key_of(Path(given).expanduser()))
        if read.is_relative_to(key_of(path)):
            of = f"the output of {name}" if name else "the output"
            raise ArgumentError(f"{path} is {of} and also an input.", remedy)
        if read.is_relative_to(key_of(partial_of(path))):
            raise ArgumentError(
                f"The input {given} is where the output {path.name} is kept until it is complete.", remedy
            )


def key_of(path: Path) -> str:
    """Return the same text for all names of a file, also on file systems that ignore case."""
    real = os.path.realpath(path)
    if sys.platform == "darwin":  # its file systems ignore case and composition of letters, which normcase does not do
        real = unicodedata.normalize("NFC", real).casefold()
    return os.path.normcase(real)


def check_space(folder: Path, needed: int) -> None:
    """Raise AccessError if ``folder`` is not a writable folder or has less than ``needed`` bytes free."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise AccessError(f"The folder {folder} does not exist or is not writable.", "Choose another folder.")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AccessError(
            f"{folder} has {free / 1e9:.1f} GB free, but the result needs {needed / 1e9:.1f} GB.",
            "Make space or choose another disk.",
        )


def replace_folder(new: Path, final: Path, old: Path) -> None:
    """Rename ``new`` to ``final``; a folder or file already there is moved to ``old``, in a folder of this package.

    It stays there until that folder is removed. The names are synced to disk, so that it can be removed at once.
    """
    if new.is_dir() or final.is_dir():
        remove(old)
        stands = os.path.lexists(final)
        if stands:
            rename(final, old)
        try:
            rename(new, final)
        except BaseException:
            if stands:
                rename(old, final)
            raise
    else:
        rename(new, final)
    sync_folder(final.parent)


def put_back(folder: Path, final: Path) -> None:
    """Give an old output its name again if a kill during :func:`replace_folder` left it in ``folder``."""
    if os.path.lexists(old_of(folder)) and not os.path.lexists(final):
        rename(old_of(folder), final)


def is_ours(folder: Path) -> bool:
    """Return whether a folder may be removed: it has our mark or, as after a kill, is empty."""
    return folder.is_dir() and ((folder / FOLDER).is_dir() or not any(folder.iterdir()))


def check_ours(folder: Path) -> None:
    """Raise OutputExistsError if ``folder`` exists and this package has not made it."""
    if os.path.lexists(folder) and not is_ours(folder):
        raise OutputExistsError(
            f"{folder.name} is needed for the unfinished result, but it exists and is not one of this package.",
            "Move or remove it, or choose another name for the output.",
        )


def claim(folder: Path) -> None:
    """Create a folder with nothing in it but our mark, and sync both to disk.

    Raises
    ------
    OutputExistsError
        If it exists and this package has not made it.
    """
    check_ours(folder)
    remove_ours(folder)
    folder.mkdir(exist_ok=True)
    (folder / FOLDER).mkdir(exist_ok=True)
    sync_folder(folder)  # the mark, before anything else is in the folder
    sync_folder(folder.parent)


def remove_ours(folder: Path) -> None:
    """Remove a folder of this package, and no other. The mark goes last, so that after a kill it is still known."""
    if not is_ours(folder):
        return
    for path in folder.iterdir():
        if path.name != FOLDER:
            remove(path)
    if all(path.name == FOLDER for path in folder.iterdir()):
        sync_folder(folder)
        remove(folder / FOLDER)
    with suppress(OSError):
        folder.rmdir()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_file(path)


def escaped(name: str) -> str:
    """Return a file name with its wildcards escaped."""
    return re.sub(r"([*?[])", r"[\1]", name)


def truncated(name: str, needed: int, size: int) -> tuple[str, str]:
    """Return problem and remedy for a file that ends before its data do (sizes in bytes)."""
    return (
        f"{name} is cut short: its image needs {needed} bytes, but the file has {size}.",
        "Copy or export it again.",
    )
