"""What was used last, remembered between sessions of napari in a file beside the preferences."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from napari_cropeq.core.whole_file import write_whole
from napari_cropeq.gui.preferences import file_beside

__all__ = ["last_folder", "last_used", "remember"]

NAME = "napari-cropeq-last-used.json"


def last_used() -> dict[str, Any]:
    """Return what was remembered, by name; nothing if the file does not exist or cannot be read."""
    path = file_beside(NAME)
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        return found if isinstance(found, dict) else {}
    return {}


def last_folder(purpose: str) -> Path | None:
    """Return the folder that was last used for a purpose, if it still exists."""
    folder = last_used().get(purpose)
    return Path(folder) if isinstance(folder, str) and Path(folder).is_dir() else None


def remember(**values: Any) -> None:
    """Remember JSON values by name; nothing happens where napari keeps no settings, or they cannot be written."""
    path = file_beside(NAME)
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(last_used() | values, indent=2).encode())
