"""Which process may write to a store: one, or as many as have agreed to share it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cropeq.formats.paths import escaped

__all__ = ["StoreLock"]

BEGIN_SECONDS = 120.0


class StoreLock:
    """A lock beside a store that ends with the process, however it ends.

    Parameters
    ----------
    store : path
        The unfinished store; the lock is a file beside it, so that the store can be renamed.
    part : (int, int)
        Which of how many processes that share the store this one is.
    """

    def __init__(self, store: Path, part: tuple[int, int] = (0, 1)) -> None:
        self._store, self._part = store, part
        self._own = self._lock(_name(store, *part))
        self._begin = self._lock(f".{store.name}.lock-begin")

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        BlockingIOError
            If another process writes to the store.
        """
        number, count = self._part
        try:
            self._own.acquire(timeout=0)
        except Timeout:
            who = "Another process" if count == 1 else f"Another process with --shard-id {number}"
            raise self._busy(who) from None
        # Processes that share the work have the same count; any other must have ended.
        for path in self._store.parent.glob(f".{escaped(self._store.name)}.lock-*-of-*"):
            found = re.fullmatch(r".*\.lock-(\d+)-of-(\d+)", path.name)
            if found is None or int(found[2]) == count:
                continue
            other = self._lock(path.name)
            try:
                other.acquire(timeout=0)
            except Timeout:
                self.release()
                raise self._busy(f"A process that shares the work by {found[2]}") from None
            other.release()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Wait for the others while a store is made or completed."""
        try:
            self._begin.acquire(timeout=BEGIN_SECONDS)
        except Timeout:
            raise self._busy("Another process") from None
        try:
            yield
        finally:
            self._begin.release()

    def release(self) -> None:
        """Let others write."""
        self._own.release()

    def alone(self) -> bool:
        """Return whether none of the others that share the store is at work; asked while :meth:`beginning`."""
        for path in self._store.parent.glob(f".{escaped(self._store.name)}.lock-*-of-*"):
            if path.name == _name(self._store, *self._part):
                continue
            other = self._lock(path.name)
            try:
                other.acquire(timeout=0)
            except Timeout:
                return False
            other.release()
        return True

    def remove(self) -> None:
        """Remove the files of all locks once the store is complete."""
        self.release()
        for path in self._store.parent.glob(f".{escaped(self._store.name)}.lock-*"):
            with suppress(OSError):
                os.unlink(path)

    def _lock(self, name: str) -> FileLock:
        # Taken in one thread, released in another.
        return FileLock(self._store.with_name(name), thread_local=False)

    def _busy(self, who: str) -> BlockingIOError:
        return BlockingIOError(
            f"{who} is writing to {self._store.name} now, expected nobody: wait for its end, or choose another output."
        )


def _name(store: Path, number: int, count: int) -> str:
    return f".{store.name}.lock-{number}-of-{count}"
