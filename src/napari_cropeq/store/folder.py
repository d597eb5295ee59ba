"""The folder of a store on disk: locked, begun or resumed, and in the end renamed or removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_cropeq.errors import CompletedMeanwhileError
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
from napari_cropeq.store.journal import Journal, check_same, sync_file, sync_folder
from napari_cropeq.store.levels import Levels
from napari_cropeq.store.lock import StoreLock, WriteToken

__all__ = ["FORMAT", "MODEL", "StoreFolder", "sweep", "unfinished"]

FORMAT = 1
MODEL = "model.safetensors"


def unfinished(path: Path) -> Path | None:
    """Return the unfinished store of the output ``path``, None where there is none."""
    partial = partial_of(path)
    return partial if Journal(partial).exists else None


def sweep(path: Path) -> None:
    """Remove what a kill left of the store whose output ``path`` is complete.

    Raises
    ------
    BlockingIOError
        If another process is making a store for a long time.
    """
    partial = partial_of(path)
    lock = StoreLock(partial)
    with lock.beginning():  # a store without a header is made by nobody else now
        if not Journal(partial).exists:
            remove_ours(partial)
            if path.is_dir():
                remove(path / FOLDER)
            lock.remove()


class StoreFolder:
    """A folder that bears the name of the output only once it is complete.

    Until :meth:`give_name` it is called ``NAME.partial.ome.zarr``.

    Parameters
    ----------
    path : path
        The output to be.
    part : (int, int)
        Which of how many processes that share the work this one is.
    replaces : bool
        Whether an output that stands there is replaced in the end.

    Attributes
    ----------
    partial : path
        The folder until it gets its name.
    journal : Journal
        What the store may claim to hold.
    token : WriteToken
        Under which other processes may write shards.
    finished : bool
        Whether it has got its name.
    """

    def __init__(self, path: Path, part: tuple[int, int], replaces: bool) -> None:
        self.path, self.partial, self._replaces = path, partial_of(path), replaces
        self.journal, self.lock = Journal(self.partial, part), StoreLock(self.partial, part)
        self.token = WriteToken(self.partial)
        self.finished = self._held = False

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Take the lock for good, and keep other processes waiting while the store is begun or resumed.

        Raises
        ------
        BlockingIOError
            If another process writes to the store.
        """
        with self.lock.beginning():
            self.lock.acquire()
            try:
                self.token.revoke()  # of a run that was killed: its workers may not know yet
                put_back(self.partial, self.path)
                if self._replaces and self.journal.part[1] == 1:
                    self.remove()
                yield
                self._held = True
            except BaseException:
                self.lock.release()
                raise

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Make the folder, and remove it again where making its content fails.

        Raises
        ------
        CompletedMeanwhileError
            If another process that shares the work has just completed the output.
        FileExistsError
            If something that is not ours stands there.
        """
        if self.journal.part[1] > 1 and self.path.exists():
            raise CompletedMeanwhileError(
                f"Got {self.path}, which another process has just completed: nothing is left to do."
            )
        claim(self.partial)
        try:
            yield
        except BaseException:
            remove_ours(self.partial)
            raise

    def begin(self, description: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
        """Write what the store is made of; the last step of making it."""
        header = {"format": FORMAT, "output": self.path.name, "replaces": self._replaces}
        self.journal.begin(header | {"result": dict(description), "fingerprint": dict(fingerprint)})

    def resume(self, fingerprint: Mapping[str, Any]) -> None:
        """Check what the store was begun with, and remove what a kill left in it.

        Raises
        ------
        ValueError
            If it was begun by another version, or with anything that gives other bits.
        FileExistsError
            If something stands at the output that was not to be replaced.
        """
        header = self.journal.header
        if header.get("format") != FORMAT:
            raise ValueError(
                f"Got {self.partial.name} of format {header.get('format')}, expected {FORMAT}: go on with the version "
                "that began it, or start it anew (--overwrite)."
            )
        check_same(header.get("fingerprint", {}), fingerprint, self.partial.name)
        self._replaces = bool(header.get("replaces", True))  # earlier versions did not say it
        self.check_place()
        if self.lock.alone():
            self.sweep()

    def sweep(self) -> None:
        """Remove halves of files that a kill has left."""
        for file in self.partial.rglob(f"*{PARTIAL}"):
            file.unlink(missing_ok=True)

    def check_place(self, file: Path | None = None) -> None:
        """Raise FileExistsError if something stands at the output that was not to be replaced.

        Parameters
        ----------
        file : path, optional
            What takes the name next: it is recognised should a kill leave the store beside it.
        """
        if not self._replaces and self.path.exists() and not self.journal.placed(self.path):
            raise FileExistsError(
                f"Got {self.path}, which has come into being since it was begun as {self.partial.name}, expected "
                "nothing there: move it away and resume, what is done is kept."
            )
        if file is not None:
            self.journal.place(file)

    def sync(self) -> None:
        """Have the metadata written to the disk itself, and note that every shard is there."""
        for file in self.partial.rglob("zarr.json"):
            sync_file(file)
            sync_folder(file.parent)
        self.journal.finish()

    def give_name(self, levels: Levels) -> None:
        """Rename the folder to the output; an output that stood there is replaced only now."""
        with self.lock.beginning(), levels.moved(self.path):
            replace_folder(self.partial, self.path, old_of(self.partial))
        sync_folder(self.path.parent)
        remove(self.path / FOLDER)
        self.lock.remove()
        self.finished = True

    def revoke(self) -> None:
        """Let no worker write any more, if this process has let any."""
        if self.token.value:
            with suppress(BlockingIOError):  # the next run waits for it again
                self.token.revoke()

    def release(self, empty: bool = False) -> None:
        """Let other processes resume the store; one that is ``empty`` is removed."""
        self.journal.close()
        if self._held and empty and self.journal.part[1] == 1:
            self.remove()
            self.lock.remove()
        self.lock.release()
        self._held = False

    def remove(self) -> None:
        """Remove the folder; the lock is kept."""
        self.journal.forget()
        remove_ours(self.partial)
