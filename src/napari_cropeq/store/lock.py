"""Which processes may write to a store: one, or as many as share it, and the workers of this run alone."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cropeq.errors import StoppedError
from napari_cropeq.formats.paths import FOLDER, escaped

__all__ = ["StoreLock", "WriteToken"]

BEGIN_SECONDS = 120.0
WAIT_SECONDS = 60.0
TOKEN = "permit"  # name of the file


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


class WriteToken:
    """Token that stops workers of earlier runs from writing to a store.

    The lock of a store ends with the process that holds it, but a task that this process has given to a worker does
    not: the worker may be slow, or cut off. So workers write under a token in the store that the next run removes.

    A worker holds a lock of its own beside the store while it writes, and compares tokens only after it has that lock.
    To revoke is to remove the token and then to wait for these locks.

    Parameters
    ----------
    store : path
        The unfinished store.
    value : str, optional
        What was granted; workers are sent it.
    """

    def __init__(self, store: Path, value: str = "") -> None:
        self._store, self._path, self.value = store, store / FOLDER / TOKEN, value

    @property
    def valid(self) -> bool:
        """Whether it is still granted."""
        try:
            return bool(self.value) and self._path.read_text(encoding="utf-8") == self.value
        except OSError:
            return False

    def grant(self) -> str:
        """Let workers that are sent the value write, and return it; the store must be locked by this process."""
        self.value = uuid.uuid4().hex
        new = self._path.with_name(f"{TOKEN}.new")
        new.write_text(self.value, encoding="utf-8")
        os.replace(new, self._path)
        return self.value

    def revoke(self, seconds: float = WAIT_SECONDS) -> None:
        """Stop all workers from writing, whichever run they belong to; wait for those that are writing.

        Raises
        ------
        BlockingIOError
            If one is still writing after so many seconds.
        """
        self.value = ""
        self._path.unlink(missing_ok=True)
        end = time.monotonic() + seconds
        for path in self._store.parent.glob(f"{escaped(self._prefix)}*"):
            lock = FileLock(path, thread_local=False)
            try:
                lock.acquire(timeout=max(0.0, end - time.monotonic()))
            except Timeout:
                raise BlockingIOError(
                    f"A worker of an earlier run is writing to {self._store.name} now, expected nobody: end it, and "
                    "resume."
                ) from None
            _let_go(lock, path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write in a worker.

        Raises
        ------
        StoppedError
            If the token was revoked.
        """
        if not self.valid:
            raise StoppedError
        path = self._store.with_name(f"{self._prefix}{uuid.uuid4().hex}")
        lock = FileLock(path, thread_local=False)
        with lock:
            try:
                if not self.valid:
                    raise StoppedError
                yield
            finally:
                _let_go(lock, path)

    @property
    def _prefix(self) -> str:
        return f".{self._store.name}.lock-writer-"


def _let_go(lock: FileLock, path: Path) -> None:
    lock.release()
    with suppress(OSError):
        os.unlink(path)
