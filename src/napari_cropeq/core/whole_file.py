"""Files that exist complete or not at all, even if the process that writes them is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["partial_of", "whole_file", "write_whole"]


def partial_of(path: Path) -> Path:
    """Return the name under which the file ``path`` is written; a killed process leaves it behind."""
    return path.with_name(path.name + ".partial")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; an existing ``path`` is replaced only once the new one is complete and on the disk.

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
