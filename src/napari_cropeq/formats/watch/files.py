"""The files of an image as they were when it was opened."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_cropeq.errors import SourceChangedError

__all__ = ["Identity", "Watch", "identity"]

Identity = tuple[int, int, int]
"""Number, size in bytes and time of the last change in ns of a file or folder."""


def identity(path: str | Path) -> Identity | None:
    """Return what tells a file from another one that takes its place; None if it does not exist."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class Watch:
    """The files of an image as they are now, to notice later that one was replaced, changed or removed.

    Parameters
    ----------
    name : str
        Name of the image for the message.
    paths : iterable of path
        The files; those that do not exist are left out.

    Attributes
    ----------
    since : int
        Time of this object, ns since 1970.
    """

    def __init__(self, name: str, paths: Iterable[Path]) -> None:
        self.name, self.since = name, time.time_ns()
        self._seen: dict[Path, Identity] = {}
        self.add(paths)

    def add(self, paths: Iterable[Path]) -> None:
        """Watch more files, from now on."""
        for path in paths:
            seen = identity(path)
            if seen is not None:
                self._seen.setdefault(path.absolute(), seen)

    def check(self) -> None:
        """Compare the files with what they were.

        Raises
        ------
        SourceChangedError
            If one was replaced, changed or removed.
        OSError
            If the disk does not answer.
        """
        for path, seen in self._seen.items():
            self.compare(path, seen)

    def compare(self, path: str | Path, seen: Identity | None) -> None:
        """Raise SourceChangedError if a file is no longer as it was ``seen``."""
        now = identity(path)
        if now != seen:
            happened = "was removed" if now is None else "was added" if seen is None else "was replaced or changed"
            raise self.changed(f"{path} {happened}")

    def changed(self, what: str) -> SourceChangedError:
        """Return the error for ``what`` happened."""
        return SourceChangedError(
            f"{self.name} has changed since it was opened: {what}.",
            "Put the image back and resume, or start again with the new one.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Another machine may number its files otherwise: there, the files count as they are when it opens them.
        return Watch, (self.name, tuple(self._seen))
