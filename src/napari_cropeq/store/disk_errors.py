"""Errors of the disk as messages that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_cropeq.core.whole_file import FULL
from napari_cropeq.errors import AccessError, CropeqError

__all__ = ["disk_error", "disk_errors"]


@contextmanager
def disk_errors(name: str) -> Iterator[None]:
    """Raise AccessError if the disk is full while ``name`` is written."""
    try:
        yield
    except OSError as error:
        cause = error
        if isinstance(error, AccessError) and error.setting == "space" and isinstance(error.__cause__, OSError):
            cause = error.__cause__  # of a single file in the store, whose own name helps nobody
        if cause.errno in FULL:
            raise disk_error(cause, name) from cause
        raise


def disk_error(error: BaseException, name: str) -> BaseException:
    """Return an error during the writing of ``name`` as an AccessError if it came from the disk, else as it is."""
    if isinstance(error, CropeqError) or not isinstance(error, OSError):
        return error
    if error.errno in FULL:
        return AccessError(
            f"The disk is full, so {name} cannot be written.", "Make space and resume; finished tiles are kept."
        )
    return AccessError(f"{name} cannot be written any further ({error}).", "Check the disk and resume.")
