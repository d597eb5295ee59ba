"""What has been measured, kept in a folder: a JSON file for each cell, read only where it is complete."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from napari_cropeq.core.whole_file import whole_file

__all__ = ["CELLS", "FORMAT", "Record", "check_folder", "read_record", "read_records", "write_json"]

FORMAT = "napari-cropeq evaluation cell 1"
CELLS = "cells"

Record = dict[str, Any]


def check_folder(folder: str | Path) -> Path:
    """Return ``folder``, made with its ``cells/`` where they did not exist.

    Raises
    ------
    OSError
        If it cannot be made or written.
    """
    folder = Path(folder).expanduser()
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / CELLS):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise OSError(f"Got the folder {folder}, which cannot be written ({reason}): choose another.") from error
    return folder


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; a file of that name is replaced only once the new one is complete."""
    with whole_file(path) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")


def read_record(path: Path) -> Record | None:
    """Return the result in a file, None where there is none or it is not complete."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(found, dict) and found.get("format") == FORMAT and {"key", "scores"} <= found.keys()
    return found if complete else None


def read_records(folder: str | Path) -> list[Record]:
    """Return all results in the folder of an evaluation, in the order of their file names."""
    found = (read_record(path) for path in sorted((Path(folder) / CELLS).glob("*.json")))
    return [record for record in found if record is not None]
