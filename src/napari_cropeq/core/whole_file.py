"""Files that are there as a whole or not at all, whenever the process that writes them ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["partial_of", "whole_file", "write_whole"]


def partial_of(path: Path) -> Path:
    """Return what a file is called while it is written as ``path``; a process that is killed leaves it behind."""
    return path.with_name(path.name + ".partial")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write; one that is called ``path`` is replaced only once the new one is complete and on the disk.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = partial_of(path)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as :func:`whole_file` does.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)
