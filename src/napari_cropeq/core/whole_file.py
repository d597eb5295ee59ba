"""Paths that users give, and files that are complete or do not exist, even if their writer is killed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from napari_cropeq.errors import AccessError, CropeqError, WrongTypeError

__all__ = [
    "FULL",
    "path_of",
    "remove_file",
    "remove_leftovers",
    "rename",
    "sync_file",
    "sync_folder",
    "sync_handle",
    "whole_file",
    "write_whole",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, or a quota, that is full."""

PARTIAL = ".partial"
DIGITS = 16
OPEN = (5, 32)  # Windows' numbers for a file, or a folder with a file, that cannot be renamed while it is open
WAIT_SECONDS = 5.0  # virus scanners and indexers have a new file open for a moment
PAUSE_SECONDS = 0.05


def path_of(name: str, path: object, remedy: str) -> Path:
    """Return the path that a user has given for the argument ``name``, with ``~`` expanded.

    Raises
    ------
    WrongTypeError
        If it is not a path.
    """
    if isinstance(path, str):
        return Path(path).expanduser()
    if isinstance(path, os.PathLike) and isinstance(path.__fspath__(), str):
        return Path(path).expanduser()
    raise WrongTypeError(f"The argument {name} is of type {type(path).__name__}, not a path.", remedy, setting=name)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; an existing ``path`` is replaced only once the new one is complete and on the disk.

    Raises
    ------
    AccessError
        If it cannot be written.
    """
    try:
        file = _create(path)
        partial = Path(file.name)
        try:
            with file:
                yield file
                file.flush()
                sync_handle(file.fileno())
            rename(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        with suppress(OSError):  # the file is complete; some network disks cannot sync a folder
            sync_folder(path.parent)
        with suppress(OSError):
            remove_leftovers(path)
    except OSError as error:
        if isinstance(error, CropeqError):
            raise
        raise _access_error(error, path) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as :func:`whole_file` does.

    Raises
    ------
    AccessError
        If it cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)


def remove_leftovers(path: Path) -> None:
    """Remove the incomplete files of ``path`` that killed processes have left, and no others."""
    ours = re.compile(re.escape(path.name) + rf"\.[0-9a-f]{{{DIGITS}}}" + re.escape(PARTIAL))
    for found in path.parent.iterdir():
        if ours.fullmatch(found.name) and found.is_file() and not found.is_symlink():
            with suppress(OSError):  # another process is writing it
                if os.name == "posix":
                    with open(found, "r+b") as file:
                        _lock(file)
                found.unlink()


def sync_file(path: Path) -> None:
    """Sync the content of a file to disk."""
    with open(path, "r+b") as file:
        sync_handle(file.fileno())


def sync_handle(handle: int) -> None:
    """Sync an open file to disk; on macOS, ``fsync`` leaves its content in the cache of the drive."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # network disks do not have it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def rename(path: Path, final: Path) -> None:
    """Give a file or folder another name, also one that exists. Windows refuses that while either is open.

    Raises
    ------
    AccessError
        If another program, or a layer, has one of them open.
    """
    try:
        _once_closed(lambda: os.replace(path, final))
    except PermissionError as error:
        if getattr(error, "winerror", None) not in OPEN:
            raise
        raise AccessError(
            f"{path.name} cannot be renamed to {final}: one of them is open, or the folder is read-only.",
            "Close it in other programs, and layers that show it, then try again.",
        ) from error


def remove_file(path: Path) -> None:
    """Remove a file if it exists."""
    _once_closed(lambda: path.unlink(missing_ok=True))


def _once_closed(action: Callable[[], None]) -> None:
    """Do something that Windows refuses while a file is open, as soon as it is closed."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return action()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in OPEN or time.monotonic() > end:
                raise
        time.sleep(PAUSE_SECONDS)


def sync_folder(path: Path) -> None:
    """Sync the entries of a folder to disk, if the system supports it."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            sync_handle(handle)
        finally:
            os.close(handle)


def _create(path: Path) -> BinaryIO:
    """Create a file beside ``path`` under a name that nobody else uses, or could have prepared as a link."""
    while True:
        try:
            file = open(path.with_name(f"{path.name}.{secrets.token_hex(DIGITS // 2)}{PARTIAL}"), "xb")
        except FileExistsError:
            continue
        with suppress(OSError):  # a disk without locks
            _lock(file)
        return file


def _lock(file: BinaryIO) -> None:
    """Lock a file until it is closed, even by a kill, so that :func:`remove_leftovers` of others leaves it alone."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _access_error(error: OSError, path: Path) -> AccessError:
    if error.errno in FULL:
        return AccessError(
            f"The disk is full, so {path} cannot be written.", "Make space and try again.", setting="space"
        )
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return AccessError(f"{path} cannot be written ({reason}).", "Check the folder and its disk.")
