"""The folder of a store on disk: locked, created or resumed, and finally renamed or removed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_cropeq.errors import CompletedMeanwhileError, MismatchError, OutputExistsError
from napari_cropeq.formats.find import check_result
from napari_cropeq.formats.paths import (
    FOLDER,
    PARTIAL,
    claim,
    old_of,
    partial_of,
    put_back,
    remove,
    remove_ours,
    replace_folder,
)
from napari_cropeq.store.journal import Journal, check_same, sync_folders
from napari_cropeq.store.levels import Levels
from napari_cropeq.store.lock import StoreLock, WriteToken
from napari_cropeq.store.metadata import Metadata
from napari_cropeq.store.verified import Verified

__all__ = ["FORMAT", "MODEL", "StoreFolder", "sweep", "unfinished"]

logger = logging.getLogger(__name__)

FORMAT = 1
MODEL = "model.safetensors"


def unfinished(path: Path) -> Path | None:
    """Return the unfinished store of the output ``path``, or None."""
    partial = partial_of(path)
    return partial if Journal(partial).exists else None


def sweep(path: Path) -> None:
    """Remove what a kill left of the store of the complete output ``path``.

    Raises
    ------
    InUseError
        If another process takes too long to create a store.
    """
    partial = partial_of(path)
    lock = StoreLock(partial)
    with lock.exclusive():  # no other process creates a store now
        if not Journal(partial).exists:
            remove_ours(partial)
            if path.is_dir():
                remove(path / FOLDER)
            lock.remove()


class StoreFolder:
    """A folder that gets the name of the output only when it is complete.

    Until :meth:`give_name` it is called ``NAME.partial.ome.zarr``.

    Parameters
    ----------
    path : path
        The output.
    part : (int, int)
        Number of this process among those that share the work, and their count.
    replaces : bool
        Whether to replace an existing output in the end.

    Attributes
    ----------
    partial : path
        The folder until it gets its name.
    journal : Journal
        Records of the finished shards.
    token : WriteToken
        Allows other processes to write shards.
    finished : bool
        Whether it has its final name.
    """

    def __init__(self, path: Path, part: tuple[int, int], replaces: bool) -> None:
        self.path, self.partial, self._replaces = path, partial_of(path), replaces
        self.journal, self.lock = Journal(self.partial, part), StoreLock(self.partial, part)
        self.token = WriteToken(self.partial)
        self.finished = self._locked = False

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Take and keep the lock, and make other processes wait while the store is created or resumed.

        Raises
        ------
        InUseError
            If another process writes to the store.
        """
        with self.lock.exclusive():
            self.lock.acquire()
            try:
                self.token.revoke()  # workers of a killed run may still be running
                put_back(self.partial, self.path)
                if self._replaces and self.journal.part[1] == 1:
                    self.remove()
                yield
                self._locked = True
            except BaseException:
                self.lock.release()
                raise

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Create the folder, and remove it again if creating its content fails.

        Raises
        ------
        CompletedMeanwhileError
            If another process that shares the work has just completed the output.
        OutputExistsError
            If the folder exists and this package has not made it.
        """
        if self.journal.part[1] > 1 and self.path.exists():
            check_result(self.path)
            raise CompletedMeanwhileError(
                f"Another process has just completed {self.path}.", "There is nothing left to do."
            )
        claim(self.partial)
        try:
            yield
        except BaseException:
            remove_ours(self.partial)
            raise

    def write_header(self, description: Mapping[str, Any], fingerprint: Mapping[str, Any], metadata: Metadata) -> None:
        """Write what the store is computed from; this is the last step of creating it."""
        header = {"format": FORMAT, "output": self.path.name, "replaces": self._replaces}
        header |= {"result": dict(description), "fingerprint": dict(fingerprint)}
        self.journal.write_header(header | metadata.header())

    def resume(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        """Check what the store was started with, remove what a kill left in it, and return its header.

        Raises
        ------
        MismatchError
            If it was started by another version, or with settings that give other bits.
        OutputExistsError
            If the output exists and must not be replaced.
        """
        header = self.journal.header
        if header.get("format") != FORMAT:
            raise MismatchError(
                f"{self.partial.name} has format {header.get('format')}, but this version of the package has format "
                f"{FORMAT}.",
                'Resume it with the version that started it, or start again with existing="overwrite".',
                setting="restart",
            )
        check_same(header.get("fingerprint"), fingerprint, self.partial.name)
        self._replaces = bool(header.get("replaces", True))  # earlier versions did not store it
        self.check_place()
        if self.lock.alone():
            self.sweep()
            Verified(self.journal.folder, self.journal.part).clear()
        logger.info("Resuming %s", self.partial)
        return header

    def sweep(self) -> None:
        """Remove incomplete files that a kill left."""
        for file in self.partial.rglob(f"*{PARTIAL}"):
            file.unlink(missing_ok=True)

    def check_place(self, file: Path | None = None) -> None:
        """Raise OutputExistsError if the output exists and must not be replaced.

        Parameters
        ----------
        file : path, optional
            The file that gets the output's name next. It is recorded, so that it is recognised after a kill that
            leaves the store as well.
        """
        if not self._replaces and self.path.exists() and not self.journal.is_output(self.path):
            raise OutputExistsError(
                f"{self.path} was created after {self.partial.name} had been started.",
                "Move it away and resume; finished tiles are kept.",
            )
        if file is not None:
            self.journal.record_output(file)

    def sync(self) -> None:
        """Sync all folders to disk, and record that every shard is finished."""
        sync_folders(self.partial)
        self.journal.finish()

    def give_name(self, levels: Levels) -> None:
        """Rename the folder to the output; an existing output is replaced only now."""
        with self.lock.exclusive(), levels.moved(self.path):
            replace_folder(self.partial, self.path, old_of(self.partial))
        remove(self.path / FOLDER)
        self.lock.remove()
        self.finished = True

    def revoke(self) -> None:
        """Stop all workers from writing, if this process has allowed any."""
        if self.token.value:
            with suppress(BlockingIOError):  # the next run waits for it again
                self.token.revoke()

    def release(self, empty: bool = False) -> None:
        """Let other processes resume the store; an ``empty`` store is removed."""
        self.journal.close()
        if self._locked and empty and self.journal.part[1] == 1:
            self.remove()
            self.lock.remove()
        self.lock.release()
        self._locked = False

    def remove(self) -> None:
        """Remove the folder; the lock is kept."""
        self.journal.forget()
        remove_ours(self.partial)
