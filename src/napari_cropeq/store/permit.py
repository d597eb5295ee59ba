"""Which run's workers may write to a store.

The lock of a store ends with the process that holds it, but a task that this process has given to a worker does not:
the worker may be slow, or cut off. So workers write under a permit, a word in the store that the next run takes away.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cropeq.errors import StoppedError
from napari_cropeq.formats.paths import escaped
from napari_cropeq.store.journal import FOLDER

__all__ = ["Permit"]

WORD = "permit"
WAIT_SECONDS = 60.0


class Permit:
    """Leave to write to a store; once it is revoked nothing is written any more, however late a worker is.

    A worker holds a lock of its own beside the store while it writes, and looks for the word only after it has that
    lock. To revoke is to take the word away and then to wait for these locks.

    Parameters
    ----------
    store : path
        The unfinished store.
    word : str, optional
        What was granted; a worker is told it.
    """

    def __init__(self, store: Path, word: str = "") -> None:
        self._store, self._path, self.word = store, store / FOLDER / WORD, word

    @property
    def valid(self) -> bool:
        """Whether it is still granted."""
        try:
            return bool(self.word) and self._path.read_text(encoding="utf-8") == self.word
        except OSError:
            return False

    def grant(self) -> str:
        """Let workers that are told the word write, and return it; only who holds the lock of the store may do so."""
        self.word = uuid.uuid4().hex
        new = self._path.with_name(f"{WORD}.new")
        new.write_text(self.word, encoding="utf-8")
        os.replace(new, self._path)
        return self.word

    def revoke(self, seconds: float = WAIT_SECONDS) -> None:
        """Let no worker write any more, whichever run it belongs to; wait for those that are writing.

        Raises
        ------
        BlockingIOError
            If one is still writing after so many seconds.
        """
        self.word = ""
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
            If the permit was revoked.
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
