"""What a store on disk may claim to hold: a journal, written only after the voxels are safe on the disk.

A missing chunk may be all fill value and a file that is there may be torn, so that presence says nothing. A line of
the journal says which shard was written, how large its file is and what its bytes are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import IntTriple, LeadingIndex
from napari_cropeq.formats.paths import FOLDER

__all__ = [
    "Journal",
    "Record",
    "Shard",
    "check_same",
    "differences",
    "digest_of",
    "sync_file",
    "sync_folder",
]

HEADER = "header.json"
COMPLETE = "complete"
PLACED = "placed"

Shard = tuple[int, LeadingIndex, IntTriple]
"""Level of the pyramid, leading indices, and the shard's number along z, y, x."""


@dataclass(frozen=True, slots=True)
class Record:
    """One shard that is safe on the disk."""

    shard: Shard
    size: int | None  # bytes of its file; None where all is fill value, for which there is no file
    digest: str

    def line(self) -> str:
        """Return the line of the journal."""
        level, leading, index = self.shard
        return json.dumps([level, list(leading), list(index), self.size, self.digest]) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Record | None:
        """Read a line; None where it was torn by a kill."""
        try:
            level, leading, (z, y, x), size, digest = json.loads(line)
            return cls((int(level), tuple(leading), (z, y, x)), size, str(digest))
        except (ValueError, TypeError):
            return None


class Journal:
    """The records of a store; each process that writes to it has a file of its own.

    Parameters
    ----------
    store : path
        Folder of the OME-Zarr image; the journal lies in ``.cropeq`` inside it, and moves with it.
    part : (int, int)
        Which of how many processes this one is.
    """

    def __init__(self, store: Path, part: tuple[int, int] = (0, 1)) -> None:
        self.folder, self.part = store / FOLDER, part
        self._path = self.folder / f"journal-{part[0]}-of-{part[1]}.jsonl"
        self._file: Any = None

    @property
    def exists(self) -> bool:
        """Whether the store was begun."""
        return (self.folder / HEADER).exists()

    @property
    def complete(self) -> bool:
        """Whether every shard was there, and only the name was missing."""
        return (self.folder / COMPLETE).exists()

    @property
    def header(self) -> dict[str, Any]:
        """What was begun.

        Raises
        ------
        ValueError
            If it cannot be read.
        """
        try:
            header = json.loads((self.folder / HEADER).read_text(encoding="utf-8"))
            if not isinstance(header, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Got {self.folder.parent}, whose journal cannot be read ({error}), expected an unfinished result: "
                "start it anew (--overwrite)."
            ) from error
        return header

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write what is begun; the last step of making a store."""
        self.folder.mkdir(exist_ok=True)
        self._write(HEADER, json.dumps(header, indent=1))

    def records(self) -> Iterator[Record]:
        """Yield what all processes have written, torn lines left out; a shard may come twice."""
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                record = Record.of_line(line)
                if record is not None:
                    yield record

    def add(self, record: Record) -> None:
        """Claim a shard, whose file must be safe on the disk by now."""
        if self._file is None:
            self._file = open(self._path, "a", encoding="utf-8")
            self._file.write("\n")  # a kill may have torn the last line
            sync_folder(self.folder)
        self._file.write(record.line())
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Say that every shard is there."""
        self.close()
        self._write(COMPLETE, "")

    def place(self, file: Path) -> None:
        """Note which file is about to bear the output's name: after a kill it may, and the store be there as well."""
        self._write(PLACED, _identity(file))

    def placed(self, file: Path) -> bool:
        """Return whether a file is the one that was noted."""
        note = self.folder / PLACED
        return note.exists() and note.read_text(encoding="utf-8") == _identity(file)

    def forget(self) -> None:
        """Say that nothing was begun: the first step of removing a store, so that a kill leaves no half of one."""
        self.close()
        if self.exists:
            (self.folder / HEADER).unlink()
            sync_folder(self.folder)

    def close(self) -> None:
        """Close this process's file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, name: str, text: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        sync_file(new)
        os.replace(new, self.folder / name)
        sync_folder(self.folder)


def _identity(file: Path) -> str:
    """Return what a file keeps when it is renamed."""
    found = file.stat()
    return f"{found.st_ino} {found.st_size}"


def digest_of(content: bytes) -> str:
    """Return what tells the bytes of a file from others."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sync_file(path: Path) -> None:
    """Have a file's content written to the disk itself."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have a folder's entries written to the disk itself, where the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_same(started: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise unless two fingerprints are equal.

    Raises
    ------
    ValueError
        With what differs, in the words of the fingerprint.
    """
    found = list(differences(started, now))
    if found:
        raise ValueError(
            f"Got {name}, which was begun with another {'; another '.join(found)}: go on with what it was begun with, "
            "or start it anew (--overwrite)."
        )


def differences(started: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what differs between two fingerprints, in words: its name, what it was and what it is now."""
    for key in dict.fromkeys([*started, *now]):
        old, new = started.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{key}: ")
        elif old != new:
            yield f"{where}{key} ({old}, now {new})"
