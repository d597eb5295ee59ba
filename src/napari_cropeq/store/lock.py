"""Locks of a store: one process writes to it, or those that share the work, and only the workers of this run."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cropeq.core.whole_file import remove_file, rename
from napari_cropeq.errors import InUseError, StoppedError
from napari_cropeq.formats.paths import FOLDER, escaped

__all__ = ["StoreLock", "WriteToken"]

EXCLUSIVE_SECONDS = 120.0
WAIT_SECONDS = 60.0
TOKEN = "permit"  # name of the file


class StoreLock:
    """A lock beside a store that is released when the process ends, even by a kill.

    Parameters
    ----------
    store : path
        The unfinished store; the lock is a file beside it, so that the store can be renamed.
    part : (int, int)
        Number of this process among those that share the work, and their count.
    """

    def __init__(self, store: Path, part: tuple[int, int] = (0, 1)) -> None:
        self._store, self._part = store, part
        self._own = self._lock(_name(store, *part))
        self._exclusive = self._lock(f".{store.name}.lock-begin")

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        InUseError
            If another process writes to the store.
        """
        number, count = self._part
        try:
            self._own.acquire(timeout=0)
        except Timeout:
            who = "Another process" if count == 1 else f"Another process with number {number} of 0 to {count - 1}"
            raise self._busy(who) from None
        # Processes that share the work have the same count; all others must have ended.
        for path in self._store.parent.glob(f".{escaped(self._store.name)}.lock-*-of-*"):
            found = re.fullmatch(r".*\.lock-(\d+)-of-(\d+)", path.name)
            if found is None or int(found[2]) == count:
                continue
            other = self._lock(path.name)
            try:
                other.acquire(timeout=0)
            except Timeout:
                self.release()
                raise self._busy(f"A process of a run in {found[2]} part{'s' * (found[2] != '1')}") from None
            other.release()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Allow only one process at a time to create or complete a store; the others wait.

        Raises
        ------
        InUseError
            If the wait takes too long.
        """
        try:
            self._exclusive.acquire(timeout=EXCLUSIVE_SECONDS)
        except Timeout:
            raise self._busy("Another process") from None
        try:
            yield
        finally:
            self._exclusive.release()

    def release(self) -> None:
        """Release the lock, so that others can write."""
        self._own.release()

    def alone(self) -> bool:
        """Return whether no other process that shares the store is running; call it inside :meth:`exclusive`."""
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
        """Remove all lock files, when the store is complete."""
        self.release()
        for path in self._store.parent.glob(f".{escaped(self._store.name)}.lock-*"):
            with suppress(OSError):
                os.unlink(path)

    def _lock(self, name: str) -> FileLock:
        # The lock may be acquired in one thread and released in another.
        return FileLock(self._store.with_name(name), thread_local=False)

    def _busy(self, who: str) -> InUseError:
        return InUseError(
            f"{who} is writing to {self._store.name}.", "Wait until it has ended, or choose another output."
        )


def _name(store: Path, number: int, count: int) -> str:
    return f".{store.name}.lock-{number}-of-{count}"


class WriteToken:
    """Token that stops workers of earlier runs from writing to a store.

    The lock of a store ends with its process, but a task that this process has sent to a worker does not: the worker
    may be slow or disconnected. So workers may write only while the store has their token, and the next run removes it.

    A worker takes its own lock beside the store while it writes, and compares tokens only after it has that lock.
    Revoking removes the token and then waits for these locks.

    Parameters
    ----------
    store : path
        The unfinished store.
    value : str, optional
        The token that was granted, as sent to the workers.
    """

    def __init__(self, store: Path, value: str = "") -> None:
        self._store, self._path, self.value = store, store / FOLDER / TOKEN, value

    @property
    def valid(self) -> bool:
        """Whether the token is still granted."""
        try:
            return bool(self.value) and self._path.read_text(encoding="utf-8") == self.value
        except OSError:
            return False

    def grant(self) -> str:
        """Allow workers with the returned value to write; this process must have locked the store."""
        self.value = uuid.uuid4().hex
        new = self._path.with_name(f"{TOKEN}.new")
        new.write_text(self.value, encoding="utf-8")
        rename(new, self._path)
        return self.value

    def revoke(self, seconds: float = WAIT_SECONDS) -> None:
        """Stop the workers of all runs from writing; wait for those that are writing.

        Raises
        ------
        InUseError
            If one is still writing after this many seconds.
        """
        self.value = ""
        remove_file(self._path)
        end = time.monotonic() + seconds
        for path in self._store.parent.glob(f"{escaped(self._prefix)}*"):
            lock = FileLock(path, thread_local=False)
            try:
                lock.acquire(timeout=max(0.0, end - time.monotonic()))
            except Timeout:
                raise InUseError(
                    f"A worker of an earlier run is writing to {self._store.name}.", "End it and resume."
                ) from None
            _release(lock, path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write in a worker while the token is valid.

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
                _release(lock, path)

    @property
    def _prefix(self) -> str:
        return f".{self._store.name}.lock-writer-"


def _release(lock: FileLock, path: Path) -> None:
    lock.release()
    with suppress(OSError):
        os.unlink(path)
