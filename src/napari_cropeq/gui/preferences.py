"""The user's preferences: the page *cropeq super-resolution* of napari's Preferences."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from napari_cropeq.errors import ArgumentError

__all__ = ["Preferences", "file_beside", "on_change"]

PLUGIN = "napari-cropeq"
GIGABYTE = 10**9
PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Preferences:
    """The values chosen in *File > Preferences*; the manifest declares the same fields and defaults."""

    device: str = "auto"  # where to compute: auto, cpu, cuda, mps or xpu
    cache_bytes: int = 2 * GIGABYTE  # limit of computed tiles kept in memory
    cache_folder: Path = field(default_factory=lambda: user_cache_path(PLUGIN))  # of files that survive a crash

    @classmethod
    def read(cls) -> Preferences:
        """Return the current preferences, with the default for each that is not set or not valid."""
        try:
            chosen = _settings().computing
            folder = chosen.cache_folder.strip()
            values = {"device": chosen.device, "cache_bytes": round(chosen.cache_memory * GIGABYTE)}
        except Exception:  # noqa: BLE001 (a napari without such settings, or a file that it cannot read)
            return cls()
        # A relative path starts at the home folder, because the folder that napari was started from is arbitrary.
        return cls(**values, **({"cache_folder": Path.home() / os.path.expanduser(folder)} if folder else {}))

    def make_cache_folder(self) -> Path:
        """Create the cache folder, for this user only, if it does not exist, and return it.

        The default folder is this package's own, so one of an earlier version is made private as well; the rights of a
        folder that the user has chosen stay as they are.

        Raises
        ------
        ArgumentError
            If it cannot be created.
        """
        try:
            self.cache_folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            if self.cache_folder == user_cache_path(PLUGIN):
                self.cache_folder.chmod(PRIVATE)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ArgumentError(
                f"The cache folder {str(self.cache_folder)!r} cannot be created ({reason}).",
                "Choose another one in File > Preferences > cropeq super-resolution.",
                setting="cache_folder",
            ) from error
        return self.cache_folder


def on_change(callback: Callable[[Preferences], None]) -> Callable[[], None]:
    """Call ``callback`` with the new preferences whenever one changes; return a function that disconnects it.

    The Preferences window changes them while the user types, and restores them when it is cancelled.
    """

    def notify(_: Any = None) -> None:
        callback(Preferences.read())

    try:
        changed = _settings().events.changed
    except Exception:  # noqa: BLE001 (without settings, nothing changes)
        return lambda: None
    changed.connect(notify)
    return lambda: changed.disconnect(notify)


def file_beside(name: str) -> Path | None:
    """Return the path of a file of this name beside that of the preferences; None if napari keeps no settings."""
    try:
        path = _settings().config_path
    except Exception:  # noqa: BLE001 (a napari without such settings)
        return None
    return None if path is None else Path(path).with_name(name)


def _settings() -> Any:
    """Return this plugin's settings in napari."""
    from napari.settings import get_plugin_settings

    return get_plugin_settings(PLUGIN)
