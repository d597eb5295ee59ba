"""Records of finished experiments: a folder with one JSON file for each; incomplete files are ignored."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from napari_cropeq.core.whole_file import whole_file
from napari_cropeq.errors import AccessError

__all__ = ["CELLS", "FORMAT", "Record", "check_folder", "read_record", "read_records", "write_json"]

FORMAT = "napari-cropeq evaluation cell 1"
CELLS = "cells"
"""Name of the folder of experiments."""

Record = dict[str, Any]
"""What was measured in one experiment, in values that JSON can hold."""


def check_folder(folder: str | Path) -> Path:
    """Return ``folder``; it and its ``cells/`` are created if they do not exist.

    Raises
    ------
    AccessError
        If it cannot be created or written.
    """
    folder = Path(folder).expanduser()
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / CELLS):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise AccessError(
            f"The folder {folder} cannot be written ({reason}).", "Choose another folder.", setting="folder"
        ) from error
    return folder


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; an existing file is replaced only once the new one is complete."""
    with whole_file(path) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")


def read_record(path: Path) -> Record | None:
    """Return the record in a file; None if the file does not exist or is incomplete."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(found, dict) and found.get("format") == FORMAT and {"key", "scores"} <= found.keys()
    return found if complete else None


def read_records(folder: str | Path) -> list[Record]:
    """Return all records in the folder of an evaluation, in the order of their file names."""
    found = (read_record(path) for path in sorted((Path(folder) / CELLS).glob("*.json")))
    return [record for record in found if record is not None]
