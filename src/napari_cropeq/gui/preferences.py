"""What the user prefers everywhere: the page *cropeq super-resolution* of napari's Preferences."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

__all__ = ["Preferences", "on_change"]

PLUGIN = "napari-cropeq"
GIGABYTE = 10**9


@dataclass(frozen=True, slots=True)
class Preferences:
    """What was chosen in *File > Preferences*; the manifest declares the same fields and defaults."""

    device: str = "auto"  # where to compute: auto, cpu or cuda
    cache_bytes: int = 2 * GIGABYTE  # of computed tiles kept in memory
    cache_folder: Path = field(default_factory=lambda: user_cache_path(PLUGIN))  # of what outlives a crash

    @classmethod
    def read(cls) -> Preferences:
        """Return what is preferred now; the default of each that is not set, or set to what cannot be."""
        try:
            chosen = _settings().computing
            folder = chosen.cache_folder.strip()
            values = {"device": chosen.device, "cache_bytes": round(chosen.cache_memory * GIGABYTE)}
        except Exception:  # noqa: BLE001 (a napari without such settings, or a file that it cannot read)
            return cls()
        # A relative path counts from the home folder: from where napari was started is chance.
        return cls(**values, **({"cache_folder": Path.home() / os.path.expanduser(folder)} if folder else {}))

    def make_cache_folder(self) -> Path:
        """Make the cache folder where there is none yet, and return it.

        Raises
        ------
        ValueError
            If it cannot be made.
        """
        try:
            self.cache_folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"Got {str(self.cache_folder)!r} as cache folder, which cannot be made ({reason}): "
                "choose another in File > Preferences > cropeq super-resolution."
            ) from error
        return self.cache_folder


def on_change(callback: Callable[[Preferences], None]) -> Callable[[], None]:
    """Call ``callback`` with the new preferences whenever one is changed, and return what ends that.

    The Preferences window changes them as the user types, and back when it is cancelled.
    """

    def tell(_: Any = None) -> None:
        callback(Preferences.read())

    try:
        changed = _settings().events.changed
    except Exception:  # noqa: BLE001 (where there are no settings, none changes)
        return lambda: None
    changed.connect(tell)
    return lambda: changed.disconnect(tell)


def _settings() -> Any:
    """Return napari's settings of this plugin."""
    from napari.settings import get_plugin_settings

    return get_plugin_settings(PLUGIN)
