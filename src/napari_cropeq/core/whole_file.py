"""Paths that users give, and files that are complete or do not exist, even if their writer is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from napari_cropeq.errors import WrongTypeError

__all__ = ["partial_of", "path_of", "whole_file", "write_whole"]


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
