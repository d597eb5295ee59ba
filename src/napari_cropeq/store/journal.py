"""Journal of the finished shards of a store on disk; a shard is recorded only after its voxels are synced to disk.

The presence of files proves nothing: a missing file may be all fill value, and an existing one may be incomplete. A
line of the journal records which shard was written, the size of its file and a digest of its bytes. Header and lines
have a checksum each; those of earlier versions have none, and are read as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import IntTriple, LeadingIndex
from napari_cropeq.core.whole_file import remove_file, rename, sync_file, sync_folder, sync_handle
from napari_cropeq.errors import ImageError, MismatchError
from napari_cropeq.formats.paths import FOLDER

__all__ = [
    "Journal",
    "Record",
    "Shard",
    "check_same",
    "differences",
    "digest_of",
    "sealed",
    "sync_file",
    "sync_folder",
    "sync_folders",
    "unsealed",
]

HEADER = "header.json"
COMPLETE = "complete"
PLACED = "placed"
ENDED = "ended-{}-of-{}"
CHECKSUM = "checksum"

LATER = ("training",)
"""Entries of fingerprints that version 0.1.0 did not write."""

Shard = tuple[int, LeadingIndex, IntTriple]
"""Level of the pyramid, leading indices, and number of the shard along z, y, x."""


@dataclass(frozen=True, slots=True)
class Record:
    """One finished shard, synced to disk."""

    shard: Shard
    size: int | None  # bytes of its file; None if all is fill value, which has no file
    digest: str

    @property
    def values(self) -> list[Any]:
        """The record in JSON values."""
        level, leading, index = self.shard
        return [level, list(leading), list(index), self.size, self.digest]

    def line(self) -> str:
        """Return the line of the journal."""
        return sealed(self.values)

    @classmethod
    def of_line(cls, line: str) -> Record | None:
        """Read a line; None if a kill left it incomplete, or it is damaged."""
        return cls.of_values(unsealed(line, 5))

    @classmethod
    def of_values(cls, values: list[Any] | None) -> Record | None:
        """Return the record of JSON values; None if they are not those of a record."""
        if values is None or not isinstance(values[1], list) or not isinstance(values[2], list):
            return None
        level, leading, index, size, digest = values
        numbers = [level, *leading, *index, 0 if size is None else size]
        if len(index) != 3 or not isinstance(digest, str) or any(type(n) is not int or n < 0 for n in numbers):
            return None
        return cls((level, tuple(leading), (index[0], index[1], index[2])), size, digest)


def sealed(values: list[Any]) -> str:
    """Return a line of JSON that ends with a checksum of ``values``."""
    return json.dumps([*values, _checksum(values)]) + "\n"


def unsealed(line: str, count: int) -> list[Any] | None:
    """Return the ``count`` values of a line; None if it is damaged. Lines of earlier versions have no checksum."""
    try:
        values = json.loads(line)
        whole = isinstance(values, list) and len(values) >= count
        return values[:count] if whole and values[count:] in ([], [_checksum(values[:count])]) else None
    except (ValueError, RecursionError):
        return None


def _checksum(values: Any) -> str:
    return digest_of(json.dumps(values, sort_keys=True).encode())[:16]


class Journal:
    """The records of a store; each process that writes to it has its own file.

    Parameters
    ----------
    store : path
        Folder of the OME-Zarr image; the journal is in ``.cropeq`` inside it.
    part : (int, int)
        Number of this process among those that share the work, and their count.
    """

    def __init__(self, store: Path, part: tuple[int, int] = (0, 1)) -> None:
        self.folder, self.part = store / FOLDER, part
        self._path = self.folder / f"journal-{part[0]}-of-{part[1]}.jsonl"
        self._file: Any = None

    @property
    def exists(self) -> bool:
        """Whether the store was started, and so has a header."""
        return (self.folder / HEADER).exists()

    @property
    def complete(self) -> bool:
        """Whether every shard is finished, and only the rename is missing."""
        return (self.folder / COMPLETE).exists()

    @property
    def header(self) -> dict[str, Any]:
        """What the store was started with.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        try:
            header = json.loads((self.folder / HEADER).read_text(encoding="utf-8"))
            if not isinstance(header, dict):
                raise ValueError("it is not a JSON object")
            checksum = header.pop(CHECKSUM, None)
            if checksum is not None and checksum != _checksum(header):
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError, RecursionError) as error:
            raise ImageError(
                f"The journal of {self.folder.parent} cannot be read ({error}).",
                'Start again with existing="overwrite".',
                setting="restart",
            ) from error
        return header

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write what the store is started with; the last step of creating it."""
        self.folder.mkdir(exist_ok=True)
        self._write(HEADER, json.dumps({**header, CHECKSUM: _checksum(header)}, indent=1))

    def records(self) -> Iterator[Record]:
        """Yield the records of all processes, without incomplete lines; a shard may come twice."""
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                record = Record.of_line(line)
                if record is not None:
                    yield record

    def add(self, record: Record) -> None:
        """Record a shard, whose file must be synced to disk already."""
        if self._file is None:
            self._file = open(self._path, "a", encoding="utf-8")
            self._file.write("\n")  # a kill may have left the last line incomplete
            sync_folder(self.folder)
        self._file.write(record.line())
        self._file.flush()
        sync_handle(self._file.fileno())

    def end_part(self) -> None:
        """Record that this process has finished all its shards, so that the last process need not wait for it."""
        self._write(ENDED.format(*self.part), "")

    @property
    def ended(self) -> bool:
        """Whether all processes that share the work have finished their shards at some time."""
        count = self.part[1]
        return all((self.folder / ENDED.format(number, count)).exists() for number in range(count))

    def finish(self) -> None:
        """Record that every shard is finished."""
        self.close()
        self._write(COMPLETE, "")

    def record_output(self, file: Path) -> None:
        """Record the file that gets the output's name next: a kill after that leaves the store beside it."""
        self._write(PLACED, _identity(file))

    def is_output(self, file: Path) -> bool:
        """Return whether a file is the one that was recorded."""
        recorded = self.folder / PLACED
        return recorded.exists() and recorded.read_text(encoding="utf-8") == _identity(file)

    def forget(self) -> None:
        """Remove the header: the first step of removing a store, so that after a kill it does not count as started."""
        self.close()
        if self.exists:
            remove_file(self.folder / HEADER)
            sync_folder(self.folder)

    def close(self) -> None:
        """Close this process's file."""
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which :meth:`add` has reported
                self._file.close()
            self._file = None

    def _write(self, name: str, text: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        sync_file(new)
        rename(new, self.folder / name)
        sync_folder(self.folder)


def _identity(file: Path) -> str:
    """Return an identity of a file that a rename does not change."""
    found = file.stat()
    return f"{found.st_ino} {found.st_size}"


def digest_of(content: bytes) -> str:
    """Return a digest of the bytes of a file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sync_folders(path: Path) -> None:
    """Sync the entries of a folder and of all folders in it, as :func:`sync_folder`."""
    for folder, _, _ in os.walk(path):
        sync_folder(Path(folder))


def check_same(started: Any, now: Mapping[str, Any], name: str) -> None:
    """Raise MismatchError unless two fingerprints are equal.

    Raises
    ------
    ImageError
        If ``started``, as read from a header, is no fingerprint.
    MismatchError
        Names the entries that differ.
    """
    try:
        found = list(differences({**started}, now))
    except (TypeError, RecursionError) as error:
        raise ImageError(
            f"The journal of {name} is damaged: its fingerprint cannot be read.",
            'Start again with existing="overwrite".',
            setting="restart",
        ) from error
    if found:
        raise MismatchError(
            f"{name} was started with other settings: it differs in {'; in '.join(found)}.",
            'Resume it with the same settings, or start again with existing="overwrite".',
            setting="restart",
        )


def differences(started: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield the differences between two fingerprints in words: name, old and new value.

    An entry that the version which ``started`` a store did not write is not compared.
    """
    for key in dict.fromkeys([*started, *now]):
        if key not in started and f"{where}{key}" in LATER:
            continue
        old, new = started.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{key}: ")
        elif old != new:
            yield f"{where}{key} ({old}, now {new})"
