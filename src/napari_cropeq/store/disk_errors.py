"""Errors of the disk as a sentence that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["disk_error", "disk_errors"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(name: str) -> Iterator[None]:
    """Raise the error of a full disk as a sentence where it ends the writing of ``name``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_error(error, name) from error
        raise


def disk_error(error: BaseException, name: str) -> BaseException:
    """Return an error that ended the writing of ``name`` as a sentence, where a user can do something about it."""
    if isinstance(error, OSError) and error.errno in FULL:
        return OSError(
            f"Got a full disk while writing {name}, expected more room: make space and resume, what is done is kept."
        )
    if isinstance(error, OSError):
        return OSError(f"Got {name}, which cannot be written any further ({error}): see to the disk and resume.")
    return error
